"""Base images made on this machine, for where the real one cannot be pulled.

The runtime base is Debian's Python and nothing else. The build base adds pip and what this machine
knows of its package index: certificates, mirrors, and PyTorch's CPU build from wherever pip finds
it. All of it is read from the machine; nothing of it reaches the image that is built.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.integration.image_checks.engine import CannotRun, Engine

RUNTIME, BUILD = "siqvl-standin:runtime", "siqvl-standin:build"
SUITE = "bookworm"
DEBIAN = "http://deb.debian.org/debian"
SITE = "usr/local/lib/python3.11/dist-packages"
INDEX = "opt/torch-index"
#: What the real base says too.
CHANGES = ("--change", "ENV LANG=C.UTF-8", "--change", 'CMD ["python3"]')
#: What pip is told in the build base; a mirror on this machine's disk cannot be reached from there.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host")


def build_arguments(engine: Engine, base: str, torch: str, work: Path) -> list[str]:
    """What `docker build` has to be told: nothing where the real base can be had.

    Raises:
        CannotRun: neither the base nor a stand-in can be had.
    """
    if not engine.tried("image", "inspect", base).returncode:
        return []
    pulled = engine.tried("pull", "--quiet", base)
    if not pulled.returncode:
        return []
    print(f"{base} cannot be pulled ({pulled.stderr.strip()[:100]}): a stand-in takes its place")
    if engine.tried("image", "inspect", RUNTIME, BUILD).returncode:
        _make(engine, torch, work)
    values = {"PYTHON_IMAGE": RUNTIME, "BUILD_IMAGE": BUILD, "TORCH_INDEX": f"file:///{INDEX}"}
    return [part for item in values.items() for part in ("--build-arg", "=".join(item))]


def _make(engine: Engine, torch: str, work: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise CannotRun("making a stand-in base takes root and debootstrap")
    root = work / "rootfs"
    _run("debootstrap", "--variant=minbase", "--include=python3", SUITE, str(root), _mirror())
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    shutil.rmtree(root / "var/lib/apt/lists")
    shutil.rmtree(root / "var/cache/apt/archives")
    _imported(engine, root, RUNTIME)
    _pip("install", "--target", str(root / SITE), "pip")
    _add_torch(root / INDEX / "torch", torch)
    _add_settings(root)
    _imported(engine, root, BUILD)
    shutil.rmtree(root)


def _mirror() -> str:
    """The first mirror of the suite that apt is set up with here."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    texts = [source.read_text() for source in sources if source.is_file()]
    return mirror_in(texts) or DEBIAN


def mirror_in(texts: list[str]) -> str | None:
    """The mirror of the suite in apt's source lists, of either format."""
    for text in texts:
        line = re.search(rf"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+{SUITE}\s", text, re.MULTILINE)
        if line:
            return line[1]
        for stanza in text.split("\n\n"):
            uri = re.search(r"^URIs:\s*(\S+)", stanza, re.MULTILINE)
            if uri and re.search(rf"^Suites:(.*\s)?{SUITE}(\s|$)", stanza, re.MULTILINE):
                return uri[1]
    return None


def _add_torch(folder: Path, torch: str) -> None:
    """An index of one package, made of the CPU build that pip finds for this machine."""
    folder.mkdir(parents=True)
    wanted = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.11", torch]
    _pip("download", "--dest", str(folder), *wanted)
    names = [wheel.name for wheel in folder.glob("*+cpu-*.whl")]
    if not names:
        raise CannotRun(f"pip finds no CPU build of {torch} here")
    (folder / "index.html").write_text("".join(f'<a href="{name}">{name}</a>\n' for name in names))


def _add_settings(root: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    settings = pip_settings(listed.stdout)
    variables = (os.environ.get(name) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))
    bundle = next(filter(None, (settings.pop("cert", None), *variables)), None)
    if bundle:
        (root / "etc/ssl").mkdir(exist_ok=True)
        shutil.copy(bundle, root / "etc/ssl/host.pem")
        settings["cert"] = "/etc/ssl/host.pem"
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (root / "etc/pip.conf").write_text("\n".join(["[global]", *lines, ""]))


def pip_settings(listed: str) -> dict[str, str]:
    """What counts elsewhere too of what `pip config list` prints."""
    found = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))
    settings = {}
    for name in PIP_SETTINGS:
        values = [value for value in found.get(name, "").split() if not value.startswith("file:")]
        if values:
            settings[name] = " ".join(values)
    return settings | ({"cert": found["cert"]} if "cert" in found else {})


def _imported(engine: Engine, root: Path, tag: str) -> None:
    archive = root.with_suffix(".tar")
    _run("tar", "-C", str(root), "--numeric-owner", "--one-file-system", "-cf", str(archive), ".")
    engine.call("import", *CHANGES, str(archive), tag)
    archive.unlink()


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", arguments[0], "--quiet", *arguments[1:])


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-300:]}")
