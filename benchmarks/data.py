"""How fast data is prepared and loaded, what padding costs, and how much memory it takes.

    python -m benchmarks.data prepare    # rows/s with one process and with two, beside another
                                         # build's with --against FOLDER
    python -m benchmarks.data loader     # tokens/s and padding: packed, grouped, padded
    python -m benchmarks.data step       # share of a training step spent waiting for data
    python -m benchmarks.data memory     # a source ten times larger than the memory limit

Sides that are compared run in turns, and the median over the repeats is printed.
Everything is made on the spot: no download, no GPU.
"""

from __future__ import annotations

import io
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import click

from siqvl.data.preparation.prepare import prepare as prepare_rows
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.recipe import DataPrep, Recipe, Source
from siqvl.text_table import text_table

if TYPE_CHECKING:
    from siqvl.data.encoded import EncodedDataset
    from siqvl.data.loader import TrainingLoader

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20
#: Words that the tiny tokenizer knows, so that a word is about one token.
WORDS = "red blue green circle square cross left right above below top bottom the a is and"


@click.group()
def main() -> None:
    """Benchmarks of the data path."""
    click.echo(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")


@main.command()
@click.option("--rows", default=24_000, help="a quarter of them for the larger pictures")
@click.option("--repeats", default=3)
@click.option("--side", "sides", multiple=True, default=(64, 384), help="pixels of a picture's")
@click.option("--against", type=click.Path(exists=True, file_okay=False, path_type=Path))
def prepare(rows: int, repeats: int, sides: tuple[int, ...], against: Path | None) -> None:
    """Rows per second from a table beside a folder of JPEG pictures to shards.

    --against names a checkout of another build, which prepares the same table in turns with this.
    """
    builds = {"this": ROOT} | ({"other": against.resolve()} if against else {})
    lines = [("pictures", "build", "processes", "rows/s", "x one", "x other", "CPU ms/row")]
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            table = made_table(Path(folder) / "table", rows if side == 64 else rows // 4, side)
            found = prepared_in_turns(str(table.path), Path(folder) / "out", builds, repeats)
        rates = {
            each: statistics.median(run["rows"] / run["seconds"] for run in runs)
            for each, runs in found.items()
        }
        for (build, processes), rate in rates.items():
            one, other = rates[build, 1], rates.get(("other", processes))
            runs = found[build, processes]
            cpu = statistics.median(1_000 * run["cpu_seconds"] / run["rows"] for run in runs)
            ratio = f"{rate / other:.2f}" if other else "-"
            figures = (f"{rate:,.0f}", f"{rate / one:.2f}", ratio, f"{cpu:.2f}")
            lines.append((f"{side}x{side} JPEG", build, f"{processes}", *figures))
    click.echo("\n".join(text_table(lines, left=(0, 1))))


def prepared_in_turns(
    table: str, out: Path, builds: dict[str, Path], repeats: int
) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """What `prepare_once` prints for each build with one process and with two, repeat by repeat.

    Raises:
        ClickException: a preparation failed, or builds found different rows.
    """
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(repeats):
        for processes in (1, 2):
            for build, folder in builds.items():
                program = str(ROOT / "benchmarks" / "prepare_once.py")
                done = subprocess.run(
                    [sys.executable, "-P", program, table, str(out), f"{processes}"],
                    env=os.environ | {"PYTHONPATH": str(folder)},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    raise click.ClickException(f"{folder}: {done.stderr[-2_000:]}")
                run = json.loads(done.stdout)
                found.setdefault((build, processes), []).append(run)
                shutil.rmtree(out)
    if len({run["fingerprint"] for runs in found.values() for run in runs}) > 1:
        raise click.ClickException("the builds prepared different rows: their speeds say nothing")
    return found


def made_table(folder: Path, rows: int, side: int) -> Source:
    """A JSON-lines table beside a folder of JPEG pictures, no two alike; some rows without one."""
    import numpy as np
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    rng, noise = random.Random(0), np.random.default_rng(0)
    with open(folder / "train.jsonl", "w", encoding="utf-8") as table:
        for index in range(rows):
            row: dict[str, Any] = {"id": index, "question": f"{words(rng, 12)}?"}
            # log-normal, as answers in published mixtures are: many short ones, a few long
            row["answer"] = words(rng, max(1, min(400, int(rng.lognormvariate(3.0, 1.0)))))
            if index % 5:
                row["image"] = f"images/{index}.jpg"
                pixels = noise.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
                picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
                picture.save(folder / row["image"], quality=90)
            table.write(json.dumps(row) + "\n")
    return Source(kind="table", path=str(folder / "train.jsonl"))


def words(rng: random.Random, count: int) -> str:
    """Some words of the tiny world."""
    return " ".join(rng.choices(WORDS.split(), k=count))


BATCHINGS = ("packed", "grouped", "padded")


@main.command()
@click.option("--rows", default=4_000)
@click.option("--tokens", default=4_096, help="budget of one batch")
@click.option("--repeats", default=3)
def loader(rows: int, tokens: int, repeats: int) -> None:
    """Tokens per second that reach a training loop, and the share of positions that hold none."""
    with tempfile.TemporaryDirectory() as folder:
        loaders = {name: made_loader(Path(folder), rows, tokens, name) for name in BATCHINGS}
        rates: dict[str, list[float]] = {name: [] for name in BATCHINGS}
        for _ in range(repeats):
            for name, one in loaders.items():
                start, count = time.perf_counter(), 0
                for batch in one.dataloader():
                    count += real_tokens(batch, one)
                rates[name].append(count / (time.perf_counter() - start))
    click.echo(f"{'batching':10}{'tokens/s':>12}{'x padded':>10}{'padding':>10}{'batches':>9}")
    base = statistics.median(rates["padded"])
    for name, one in loaders.items():
        rate, padding = statistics.median(rates[name]), one.plan.padding_share()
        batches = len(one.dataloader())
        click.echo(f"{name:10}{rate:12,.0f}{rate / base:10.2f}{padding:10.1%}{batches:9,}")


@main.command()
@click.option("--rows", default=1_500)
@click.option("--tokens", default=2_048, help="budget of one batch")
@click.option("--seconds", default=40.0, help="training of each kind, in turns of one step")
def step(rows: int, tokens: int, seconds: float) -> None:
    """Tokens per second of whole training steps, and the share of them spent waiting for data."""
    click.echo(f"{'batching':10}{'loader':>10}{'tokens/s':>12}{'x padded':>10}{'waiting':>10}")
    for workers in (0, 1):
        with tempfile.TemporaryDirectory() as folder:
            runs = {
                name: TimedRun(made_loader(Path(folder), rows, tokens, name, workers))
                for name in BATCHINGS
            }
            while min(run.seconds for run in runs.values()) < seconds:
                for run in runs.values():  # in turns, so that a busy machine hurts all alike
                    run.step()
            base = runs["padded"].tokens / runs["padded"].seconds
            for name, run in runs.items():
                rate = run.tokens / run.seconds
                where = "inline" if workers == 0 else f"{workers} worker"
                waiting = run.waited / run.seconds
                click.echo(f"{name:10}{where:>10}{rate:12,.0f}{rate / base:10.2f}{waiting:10.1%}")


class TimedRun:
    """The tiny model, trained on one loader; its clock runs only during its own steps."""

    def __init__(self, loader: TrainingLoader) -> None:
        import torch

        self._loader = loader
        self._batches = self._endless()
        self._model, _ = tiny_model()
        self._model.model.vision_tower.requires_grad_(False)
        learning = [weight for weight in self._model.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(learning, lr=1e-4)
        self._model.train()
        self.seconds = self.waited = 0.0
        self.tokens = 0
        self.step()  # worker processes start, kernels are chosen
        self.seconds = self.waited = 0.0
        self.tokens = 0

    def step(self) -> None:
        start = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - start
        self._model(**batch, use_cache=False).loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.seconds += time.perf_counter() - start
        self.tokens += real_tokens(batch, self._loader)

    def _endless(self) -> Iterator[dict[str, Any]]:
        while True:
            yield from self._loader.dataloader()


def made_loader(
    folder: Path, rows: int, tokens: int, batching: str, workers: int = 0
) -> TrainingLoader:
    """One epoch of a made table under a token budget: as many rows a batch as it takes on average.

    Rows without and with one picture, answers from one word to a few hundred.
    """
    from siqvl.data.batching import BatchPlan
    from siqvl.data.collate import PackedCollator, SFTCollator
    from siqvl.data.loader import TrainingLoader
    from siqvl.data.mixture import Mixture

    dataset, processor, source, prepared_rows = encoded_table(folder, rows)
    packed = batching == "packed"
    pack_length = max(dataset.lengths)
    average = sum(dataset.lengths) / len(dataset)
    plan = BatchPlan(
        Mixture.of(dataset, [source], [prepared_rows]),
        dataset.num_images,
        batching=batching,  # type: ignore[arg-type]
        batch_size=max(1, round(tokens / (pack_length if packed else average))),
        epochs=1,
        pack_length=pack_length,
    )
    collate = PackedCollator(processor) if packed else SFTCollator(processor)
    return TrainingLoader(dataset, collate, plan, workers=workers)


def encoded_table(folder: Path, rows: int) -> tuple[EncodedDataset, Any, Source, int]:
    """The made table, prepared once and encoded with the tiny processor."""
    from siqvl.data.encode import encode_dataset

    table, out = folder / "table", folder / "prepared"
    source = Source(kind="table", path=str(table / "train.jsonl"))
    if not out.exists():
        made_table(table, rows, side=64)
        prepare_rows([source], RowKind.SFT, out, data=DataPrep(), seed=0)
    dataset, manifest = load_prepared(out, RowKind.SFT)
    _, processor = tiny_model()
    encoded = encode_dataset(dataset, processor, kind=RowKind.SFT, max_length=1_024)
    return encoded, processor, source, manifest.rows


def tiny_model() -> tuple[Any, Any]:
    """The model of recipes/tiny.yaml, assembled as stage 1 does."""
    from siqvl.model.assemble import assemble

    recipe = Recipe.load(ROOT / "recipes" / "tiny.yaml")
    return assemble(
        str(ROOT / recipe.model.vision),
        str(ROOT / recipe.model.language),
        max_image_tokens=recipe.model.max_image_tokens,
        attn_implementation="sdpa",
        system_prompt=recipe.model.system_prompt,
    )


def real_tokens(batch: dict[str, Any], loader: TrainingLoader) -> int:
    """Tokens of a batch that are no padding."""
    pad = loader.collate.processor.tokenizer.pad_token_id  # type: ignore[attr-defined]
    return int((batch["input_ids"] != pad).sum())


@main.command()
@click.option("--limit", default=512, help="MiB that the preparing process may hold")
@click.option("--times", default=10, help="the source is so many times larger than the limit")
@click.option("--side", default=1_024, help="pixels of a picture's side")
def memory(limit: int, times: int, side: int) -> None:
    """Peak memory while a source is prepared that is many times larger than the limit."""
    with tempfile.TemporaryDirectory() as folder:
        source, size = large_table(Path(folder) / "source", limit * times * MIB, side)
        arguments = [sys.executable, __file__, "prepare-within", str(limit), str(source.path)]
        # mimalloc, Arrow's default, reserves address space ahead, which the limit counts as used
        environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
        done = subprocess.run(
            [*arguments, str(Path(folder) / "out")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        click.echo(f"source {size / MIB:,.0f} MiB, limit {limit} MiB")
        click.echo(done.stdout.strip() if done.returncode == 0 else done.stderr[-2_000:])
        sys.exit(done.returncode)


@main.command(hidden=True)
@click.argument("limit", type=int)
@click.argument("table")
@click.argument("out", type=Path)
def prepare_within(limit: int, table: str, out: Path) -> None:
    """Prepare a table in a process that may not hold more than `limit` MiB of data."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit * MIB, limit * MIB))
    start = time.perf_counter()
    manifest = prepare_rows(
        [Source(kind="table", path=table)], RowKind.SFT, out, data=DataPrep(), seed=0
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stored = sum(shard.bytes for shard in manifest.shards)
    click.echo(
        f"{manifest.rows:,} rows, {stored / MIB:,.0f} MiB of shards in {seconds:.0f} s: peak "
        f"resident memory {peak:,.0f} MiB"
    )


def large_table(folder: Path, size: int, side: int) -> tuple[Source, int]:
    """A table whose pictures, all different and of full entropy, take `size` bytes."""
    import numpy as np
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    noise, written, index = np.random.default_rng(0), 0, 0
    with open(folder / "train.jsonl", "w", encoding="utf-8") as table:
        while written < size:
            stream = io.BytesIO()
            pixels = noise.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(stream, "JPEG", quality=80)
            name = f"images/{index}.jpg"
            (folder / name).write_bytes(stream.getvalue())
            row = {"id": index, "image": name, "question": "What is it?", "answer": f"{index}"}
            table.write(json.dumps(row) + "\n")
            written += stream.tell()
            index += 1
    return Source(kind="table", path=str(folder / "train.jsonl")), written


if __name__ == "__main__":
    main()
