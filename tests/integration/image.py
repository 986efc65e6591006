"""Builds the image, target cpu, and looks at it from inside and outside.

python -m tests.integration.image [--image TAG] [--keep]

It needs a docker engine, or root and Debian's docker.io to start a private one for a while. Where
the base image cannot be pulled, a stand-in is made with debootstrap. What it shows:

* the time of a cold build and of one after a commit, the size, and the layers;
* a stage run with no network, no capability, a read-only root and an ordinary user;
* the same started as a cluster does, by pyflyte-fast-execute, with one changed file over the rest;
* the whole pipeline through a Flyte cluster on loopback, each task in a container;
* what the image must not hold: compilers, pip, caches, secrets, the host's files.

Exit code: 0 all checks hold, 1 one does not, 3 skipped, with a line that says what is missing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.integration.image_checks import (
    build,
    facts,
    fast,
    inside,
    pipeline,
    standin,
)
from tests.integration.image_checks.build import Built
from tests.integration.image_checks.engine import CannotRun, Engine, found_engine
from tests.integration.image_checks.facts import Fact

SKIPPED = 3


def main() -> int:
    """Run all checks and print what they found."""
    options = _options()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="siqvl-image-") as folder,
            found_engine(options.keep) as engine,
        ):
            found = check(engine, options.image, Path(folder))
    except CannotRun as error:
        print(f"skipped: {error}")
        return SKIPPED
    except subprocess.CalledProcessError as error:
        print(f"failed: {' '.join(error.cmd)}\n{error.stdout[-3000:]}\n{error.stderr[-3000:]}")
        return 1
    print("\n" + _table(found))
    failed = sum(fact.ok is False for fact in found)
    print(f"\n{sum(fact.ok is True for fact in found)} passed, {failed} failed")
    return 1 if failed else 0


def check(engine: Engine, tag: str, folder: Path) -> list[Fact]:
    """Build, run and inspect."""
    base, torch = (build.named(p) for p in (r"^ARG PYTHON_IMAGE=(\S+)", r"(torch==[\d.]+)"))
    options = standin.build_arguments(engine, base, torch, folder)
    context = build.made_context(folder / "context")
    cold = build.built(engine, context, tag, "0" * 12, [*options, "--no-cache"])
    build.changed(context)
    warm = build.built(engine, context, tag, "1" * 12, options)
    print(f"\n{build.layer_table(engine, tag)}")
    files = list(facts.entries(engine, tag))
    return [
        *_build_facts(cold, warm),
        *_inside_facts(engine, tag, context, _shared(folder)),
        pipeline.run(engine, tag, context, folder / "remote"),
        *facts.configuration_facts(warm.details, warm.revision),
        facts.history_fact(engine, tag),
        *facts.file_facts(files),
        facts.canary_fact(files, build.CANARIES),
    ]


def _build_facts(cold: Built, warm: Built) -> list[Fact]:
    kept = sum(a == b for a, b in zip(cold.layers, warm.layers, strict=True))
    return [
        Fact("size", f"{warm.gigabytes:.2f} GB"),
        Fact("cold build", f"{cold.seconds:.1f} s"),
        Fact("build after a change of one file", f"{warm.seconds:.1f} s"),
        Fact(
            "layers that this change leaves",
            f"{kept} of {len(cold.layers)}",
            kept == len(cold.layers) - 1,
        ),
    ]


def _inside_facts(engine: Engine, tag: str, context: Path, folder: Path) -> list[Fact]:
    inside.small_recipe(folder)
    box, pods = inside.Box(engine, tag, folder), inside.Pods(engine, tag, folder)
    user = inside.user_of(box)
    code = inside.run_stage(box)
    newer = fast.run_stage(pods, context)
    seconds = box.seconds | pods.seconds
    return [
        Fact("id -u", user, user not in ("", "0")),
        Fact("code of the read-only run", code, code.endswith("+" + "1" * 12)),
        Fact("code of the fast-registered run", newer, newer == code + fast.MARK),
        *(Fact(f"seconds of {name}", f"{value:.1f}") for name, value in seconds.items()),
    ]


def _shared(folder: Path) -> Path:
    """A folder that the image's user can write to, as volumes on a cluster are."""
    shared = folder / "work"
    shared.mkdir()
    folder.chmod(0o755)
    shared.chmod(0o777)
    return shared


def _table(found: list[Fact]) -> str:
    marks = {True: "ok", False: "FAILED", None: ""}
    width = max(len(fact.what) for fact in found)
    return "\n".join(f"{marks[f.ok]:6}  {f.what:{width}}  {f.value}" for f in found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="siqvl:image-test", help="tag of the image it builds")
    parser.add_argument("--keep", action="store_true", help="leave a private engine running")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
