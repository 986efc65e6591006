"""What it takes to compare a checkpoint's files with its card, beside `sha256sum` over them.

    python -m benchmarks.checkpoint                 # 1 GiB of weights, in one file and in four

Both sides run in turns on files that are in memory, and the median over the repeats is printed. The
second look of a process asks only whether a file has changed.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from siqvl import files
from siqvl.checkpoint import CARD, CheckpointCard, content_hash, verify_checkpoint
from siqvl.recipe import Recipe, Stage
from siqvl.text_table import text_table

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "tiny.yaml"
MIB = 2**20


@click.command()
@click.option("--mib", default=1024, help="of weights")
@click.option("--repeats", default=5)
@click.option("--parts", multiple=True, default=(1, 4), help="files that they are in")
def main(mib: int, repeats: int, parts: tuple[int, ...]) -> None:
    """Compare a checkpoint with its card, in turns with `sha256sum`."""
    click.echo(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    lines = [("files", "sha256sum, s", "first look, s", "ratio", "second look, ms")]
    for count in parts:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = made(Path(folder), mib // count, count)
            weights = sorted(checkpoint.glob("*.safetensors"))
            sides = {
                "sha256sum": lambda weights=weights: subprocess.run(
                    ["sha256sum", *weights], check=True, stdout=subprocess.DEVNULL
                ),
                "first": lambda checkpoint=checkpoint: first_look(checkpoint),
                "second": lambda checkpoint=checkpoint: verify_checkpoint(checkpoint),
            }
            taken = in_turns(sides, repeats)
        ratio = statistics.median(
            ours / theirs for ours, theirs in zip(taken["first"], taken["sha256sum"], strict=True)
        )
        peer, first, second = (statistics.median(taken[side]) for side in sides)
        figures = (f"{peer:.2f}", f"{first:.2f}", f"{ratio:.2f}", f"{1_000 * second:.1f}")
        lines.append((str(count), *figures))
    click.echo("\n".join(text_table(lines, left=())))


def made(folder: Path, mib: int, count: int) -> Path:
    """A checkpoint of random bytes, whose card names them."""
    for number in range(count):
        name = "model" if count == 1 else f"model-{number}"
        with open(folder / f"{name}.safetensors", "wb") as file:
            block = os.urandom(MIB)
            for _ in range(mib):
                file.write(block)
    recipe = Recipe.load(RECIPE)
    card = CheckpointCard(
        stage=Stage.DPO,
        hash=content_hash(folder),
        parent=None,
        parent_stage=None,
        recipe=recipe.model_dump(mode="json"),
        recipe_hash=recipe.hash(),
        data_fingerprint="",
        code_version="",
        mlflow_run=None,
        metrics={},
    )
    (folder / CARD).write_text(card.model_dump_json())
    return folder


def first_look(checkpoint: Path) -> None:
    """As in a process that has seen none of the files."""
    files._remembered_sha256.cache_clear()
    verify_checkpoint(checkpoint)


def in_turns(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run of each side."""
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, run in sides.items():
            start = time.perf_counter()
            run()
            taken[side].append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    main()
