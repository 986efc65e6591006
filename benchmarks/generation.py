"""How fast a model answers: evaluation and sampled pairs, beside another build and transformers.

    python -m benchmarks.generation builds --run outputs/tiny/… --against FOLDER
    python -m benchmarks.generation peers       # the 50m model beside transformers' own loops

`builds` scores the last checkpoint of a pipeline that ran, and draws completions from the one
before, with this build and with the checkout FOLDER in turns, and counts the answers that differ.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import click

from siqvl.text_table import text_table

ROOT = Path(__file__).resolve().parent.parent


@click.group()
def main() -> None:
    """Benchmarks of answering."""
    now = time.strftime("%Y-%m-%d")
    about = (f"{now}, {platform.machine()}, {os.cpu_count()} cores", platform.python_version())
    click.echo(", Python ".join(about))


@main.command()
@click.option("--run", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--against", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--recipe", default=Path("recipes/tiny.yaml"), type=Path, help="in each build")
@click.option("--repeats", default=3)
@click.option("--what", "works", multiple=True, default=("evaluate", "sample"))
def builds(
    run: Path, against: Path | None, recipe: Path, repeats: int, works: tuple[str, ...]
) -> None:
    """Answers per second of this build's evaluation and sampling, and another's in turns.

    --run is the output folder of a pipeline, of the older build if both are to read it.
    """
    folders = ({"other": against.resolve()} if against else {}) | {"this": ROOT}
    lines = [("work", "build", "answers", "s", "answers/s", "x other", "CPU s", "MiB", "differ")]
    for work in works:
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(repeats):
            for build, folder in folders.items():
                found.setdefault(build, []).append(once(work, folder, folder / recipe, run))
        base = found.get("other", found["this"])
        for build, runs in found.items():
            rates = [
                one["answers"] / one["seconds"] / (other["answers"] / other["seconds"])
                for one, other in zip(runs, base, strict=True)
            ]
            texts = zip(runs[0]["texts"], base[0]["texts"], strict=True)
            median = {
                name: statistics.median(one[name] for one in runs)
                for name in ("seconds", "cpu_seconds", "peak_mib")
            }
            answers = runs[0]["answers"]
            lines.append(
                (
                    work,
                    build,
                    f"{answers:,}",
                    f"{median['seconds']:.1f}",
                    f"{answers / median['seconds']:,.0f}",
                    f"{statistics.median(rates):.2f}",
                    f"{median['cpu_seconds']:.1f}",
                    f"{median['peak_mib']:,.0f}",
                    f"{sum(one != other for one, other in texts)}",
                )
            )
    click.echo("\n".join(text_table(lines, left=(0, 1))))


@main.command()
@click.option("--prompts", default=192)
@click.option("--places", default=32, help="completions at once of ours")
@click.option("--batch", "sizes", multiple=True, default=(16, 32, 64), help="of `generate`")
@click.option("--repeats", default=3)
def peers(prompts: int, places: int, sizes: tuple[int, ...], repeats: int) -> None:
    """Tokens per second beside `generate` and `generate_batch`; needs SIQVL_REAL_DATA."""
    from benchmarks.generation_peers import compare

    click.echo(compare(prompts, places, sizes, repeats))


def once(work: str, build: Path, recipe: Path, run: Path) -> dict[str, Any]:
    """What `answer_once` prints, and the most memory that it and its children held.

    Raises:
        ClickException: it failed.
    """
    pairs = run / "preference_pairs" / "evaluation"
    data = pairs if pairs.is_dir() else run / "data" / "evaluation"
    stage = "dpo" if work == "evaluate" else "cot_sft"
    out = Path(tempfile.mkdtemp())
    try:
        program = str(ROOT / "benchmarks" / "answer_once.py")
        arguments = [work, recipe, run / "checkpoints" / stage, data, out / "report"]
        child = subprocess.Popen(
            [sys.executable, "-P", program, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(build)},
            cwd=build,
            stdout=(out / "figures").open("wb"),  # more than a pipe holds
            stderr=(out / "log").open("wb"),
        )
        peak = 0.0
        while child.poll() is None:
            peak = max(peak, held_mib(child.pid))
            time.sleep(0.5)
        if child.returncode:
            raise click.ClickException(f"{build}: {(out / 'log').read_text()[-2_000:]}")
        return json.loads((out / "figures").read_text()) | {"peak_mib": peak}
    finally:
        shutil.rmtree(out)


def held_mib(pid: int) -> float:
    """Memory of a process and its children, of what they share each its part."""
    import psutil

    total = 0
    try:
        parent = psutil.Process(pid)
        for one in (parent, *parent.children(recursive=True)):
            rollup = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if "Pss:" in line)
    except (psutil.Error, OSError):  # one of them has just ended
        return 0.0
    return total / 1024


if __name__ == "__main__":
    main()
