"""Builds of target `cpu`: cold, and warm after a change of one source file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.image_checks.engine import Engine

ROOT = Path(__file__).parents[3]
DOCKERFILE = "docker/Dockerfile"
#: Files that must not get into an image, laid into the build context to see that they do not.
CANARIES = (
    ".env",
    "mlflow.db",
    "outputs/left.txt",
    "siqvl/.env",
    "siqvl/__pycache__/left.pyc",
    "recipes/mlflow.db-wal",
    "id_rsa",
)


@dataclass(frozen=True)
class Built:
    """An image, and how long it took."""

    tag: str
    revision: str
    seconds: float
    details: dict[str, Any]

    @property
    def gigabytes(self) -> float:
        """Its size, unpacked."""
        return self.details["Size"] / 1e9

    @property
    def layers(self) -> list[str]:
        """The digests of its layers, base first."""
        return self.details["RootFS"]["Layers"]


def named(pattern: str) -> str:
    """What the Dockerfile says, such as its default base."""
    found = re.search(pattern, (ROOT / DOCKERFILE).read_text(), re.MULTILINE)
    assert found, f"{pattern} is not in {DOCKERFILE}"
    return found[1]


def made_context(folder: Path) -> Path:
    """A copy of the checkout as git sees it, and the canaries."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():  # not deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name in CANARIES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("left by accident\n")
    return folder


def built(engine: Engine, context: Path, tag: str, revision: str, options: list[str]) -> Built:
    """Build target `cpu`; the log lies beside the context."""
    started = time.monotonic()
    engine.call(
        *("build", "--network", "host", "--target", "cpu", "--tag", tag, *options),
        *("--build-arg", f"GIT_SHA={revision}"),
        *("--file", str(context / DOCKERFILE), str(context)),
        log=context.with_suffix(".log"),
    )
    seconds = time.monotonic() - started
    return Built(tag, revision, seconds, json.loads(engine.call("image", "inspect", tag))[0])


def changed(context: Path) -> None:
    """A commit's worth of change."""
    with (context / "siqvl/version.py").open("a") as source:
        source.write("\n# changed\n")


def layer_table(engine: Engine, tag: str) -> str:
    """Size and origin of every layer that has a size."""
    lines = engine.call("history", "--format", "{{.Size}}\t{{.CreatedBy}}", tag).splitlines()
    rows = [line.partition("\t") for line in lines if not line.startswith("0B")]
    return "\n".join(f"{size:>8}  {origin or 'base'}" for size, _, origin in rows)
