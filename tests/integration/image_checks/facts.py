"""What an image holds and must not hold, read from its configuration, history and files."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tests.integration.image_checks.engine import Engine

#: The checks of file names: what is looked for, and the paths that are it.
ABSENT = {
    "compilers and build tools": (
        r"(^|/)s?bin/([\w-]+-linux-gnu-)?"
        r"(gcc|g\+\+|cc|c\+\+|clang|clang\+\+|tcc|as|ld|make|cmake|ninja|rustc|cargo|nvcc)(-[\d.]+)?$"
    ),
    "pip, setuptools, wheel in the venv": (
        r"^opt/venv/(bin/(pip|easy_install|wheel)[\d.]*$"
        r"|.*/site-packages/(pip|setuptools|wheel|pkg_resources|_distutils_hack)([/-]|$))"
    ),
    "caches of pip and apt": (
        r"(^|/)\.cache/|^var/lib/apt/lists/.*_Packages|^var/cache/apt/archives/.*\.deb$"
    ),
    "bytecode beside the code": r"^root/.*(__pycache__|\.pyc$)",
    ".git, tests, docs, docker files": (
        r"(^|/)\.git(/|$)|^root/(tests|docs|docker|benchmarks|\.ci)/"
    ),
    "files that hold secrets": (
        r"(^|/)(\.env[\w.]*|id_(rsa|dsa|ecdsa|ed25519)|\.netrc|\.pypirc|\.git-credentials"
        r"|\.npmrc|mlflow\.db[\w-]*|pip\.conf|auth\.json)$|(^|/)\.(aws|ssh|docker)/."
    ),
}
CERTIFICATE = re.compile(r"\.(pem|key|crt|p12|pfx|jks)$")
#: Published bundles of certification authorities.
KNOWN_CERTIFICATES = re.compile(
    r"^(etc|usr/share)/(ssl|ca-certificates)/|/(certifi/cacert|botocore/cacert|grpc/_cython/.*/roots)\.pem$"
)
SECRET_WORDS = re.compile(r"token|password|passwd|secret|credential|api_?key|_key\b", re.I)
#: A public fingerprint that the official Python images set.
PUBLIC = ("GPG_KEY",)
LABELS = ("title", "description", "licenses", "revision")


@dataclass(frozen=True)
class Fact:
    """One line of the table; `ok` is None where there is nothing to judge."""

    what: str
    value: str
    ok: bool | None = None


@dataclass(frozen=True)
class Entry:
    """A file or folder of the image."""

    path: str
    mode: int
    owner: int
    kind: str  # file, folder, other


def entries(engine: Engine, image: str) -> Iterator[Entry]:
    """The file system that a container of the image starts with."""
    container = engine.call("create", "--network", "none", image, "true")
    export = engine.streamed("export", container)
    try:
        with tarfile.open(fileobj=export.stdout, mode="r|") as archive:
            for member in archive:
                kind = "file" if member.isfile() else "folder" if member.isdir() else "other"
                path = member.name.removeprefix("./")
                yield Entry(path, member.mode, member.uid, kind)
    finally:
        export.wait()
        engine.call("rm", container)


def file_facts(found: Iterable[Entry]) -> list[Fact]:
    """What names, modes and owners tell."""
    found = list(found)
    paths = [entry.path for entry in found]
    facts = [
        none_of(what, [path for path in paths if re.search(pattern, path)])
        for what, pattern in ABSENT.items()
    ]
    keys = [path for path in paths if CERTIFICATE.search(path)]
    facts.append(
        none_of("keys and certificates", [p for p in keys if not KNOWN_CERTIFICATES.search(p)])
    )
    programs = [entry.path for entry in found if entry.mode & 0o6000 and entry.kind == "file"]
    facts.append(none_of("setuid and setgid programs", programs))
    facts.append(none_of("world-writable paths", _open_to_all(found)))
    facts.append(none_of("files of the user outside /root", _of_user(found)))
    bytecode = sum(path.startswith("opt/venv/") and path.endswith(".pyc") for path in paths)
    facts.append(Fact("bytecode in the venv", f"{bytecode} files"))
    return [*facts, Fact("files in all", str(sum(entry.kind == "file" for entry in found)))]


def canary_fact(found: Iterable[Entry], canaries: Iterable[str]) -> Fact:
    """Whether files that lay in the build context stayed out of the image."""
    planted = {PurePosixPath("root", name).as_posix() for name in canaries}
    return none_of("canaries of the context", [e.path for e in found if e.path in planted])


def configuration_facts(details: dict[str, Any], revision: str) -> list[Fact]:
    """What `docker image inspect` tells."""
    config = details["Config"]
    user = config.get("User", "")
    names = [entry.split("=", 1)[0] for entry in config.get("Env") or []]
    labels = config.get("Labels") or {}
    prefix = "org.opencontainers.image."
    told = labels.get(f"{prefix}revision")
    return [
        Fact("user", user or "root", bool(re.fullmatch(r"[1-9]\d*(:\d+)?", user))),
        Fact("health check", str(config.get("Healthcheck")), not config.get("Healthcheck")),
        none_of(
            "secret-like variables",
            [name for name in names if SECRET_WORDS.search(name) and name not in PUBLIC],
        ),
        none_of("labels missing", [n for n in LABELS if not labels.get(f"{prefix}{n}")]),
        Fact("revision", str(told), told == revision),
        Fact("volumes, ports", str([config.get("Volumes"), config.get("ExposedPorts")])),
    ]


def history_fact(engine: Engine, image: str) -> Fact:
    """Whether a layer's command names a secret; build arguments are part of it."""
    lines = engine.call("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).splitlines()
    told = [line for line in lines if SECRET_WORDS.search(line) and PUBLIC[0] not in line]
    return none_of("secret-like words in the history", [line[:80] for line in told])


def none_of(what: str, found: list[str]) -> Fact:
    """A check that nothing was found, which otherwise shows some of it."""
    shown = ", ".join(found[:4]) + (f" … ({len(found)})" if len(found) > 4 else "")
    return Fact(what, shown or "none", not found)


def _open_to_all(found: list[Entry]) -> list[str]:
    """What anybody may change; in a sticky folder, such as /tmp, only one's own files."""
    return [
        entry.path
        for entry in found
        if entry.kind != "other"
        and entry.mode & 0o002
        and not (entry.kind == "folder" and entry.mode & 0o1000)
        and not entry.path.startswith("dev/")
    ]


def _of_user(found: list[Entry]) -> list[str]:
    return [e.path for e in found if e.owner and not e.path.startswith("root") and e.owner >= 1000]
