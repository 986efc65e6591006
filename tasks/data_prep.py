"""Data preparation: published rows in, checked parquet shards out, and a page to look at.

pyflyte run tasks/data_prep.py data_prep --stage vqa_sft --recipe recipes/tiny.yaml

`data_prep` does it in one task. `prepare_shard` and `merge_shards` do the same work side by side
(`workflows/prepared_data.py` maps one over the shards and ends with the other); the rows come out
equal either way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flytekit import task

from siqvl.data.manifest import Manifest
from siqvl.data.preparation.distinct_pictures import HeldOut
from siqvl.data.preparation.prepare import merge_pieces, prepare, prepare_pieces
from siqvl.data.preparation.summary import summary_of
from siqvl.data.schema import RowKind
from siqvl.evaluation.benchmarks.held_out import held_out
from siqvl.evaluation.benchmarks.prepare_benchmarks import prepare_benchmarks, ready_benchmarks
from siqvl.recipe import Recipe, Source, Stage
from siqvl.recipe.compute import Kind
from siqvl.stages import STAGES
from siqvl.tracking.runs import RunLog
from tasks.cache_keys import benchmark_sources
from tasks.contracts import ALONE, TINY, PipelineRun, Preparation, PreparedData, local, workspace
from tasks.decks import show
from tasks.given import begun
from tasks.once import once
from tasks.resources import cached, policy
from tasks.tracked import share


@task(**policy(Kind.DATA), cache=cached(), enable_deck=True, deck_fields=())
@begun
def data_prep(
    stage: Preparation,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
    benchmarks: PreparedData | None = None,
) -> PreparedData:
    """Prepare the rows of one training stage, or with `evaluation` every benchmark.

    Training rows whose picture is in one of the benchmarks are left out, as `data.leaks` says.
    Without `benchmarks` (what `evaluation` prepared) the recipe's own are prepared first, unless
    they lie beside already.
    """

    def make(out: Path) -> None:
        if stage is Preparation.EVALUATION:
            prepare_benchmarks(recipe, out, keep_ready=run != ALONE)
        else:
            compared = _held_out(recipe, run, benchmarks)
            prepare(*_rows(stage, recipe), out, **_options(recipe), benchmarks=compared)

    return _prepared(stage, recipe, run, benchmarks, make)


@task(**policy(Kind.DATA))
@begun
def prepare_shard(
    shard: int, stage: Preparation, recipe: Recipe, run: PipelineRun = ALONE
) -> PreparedData:
    """Check one share of a stage's rows; what it hands on is not prepared data yet."""
    out = _place(stage, recipe, run).with_name(f"{stage.value}.shard-{shard:03d}")
    shards = recipe.data.shards
    with share(recipe, run):
        prepare_pieces(*_rows(stage, recipe), out, **_options(recipe), shard=shard, shards=shards)
    return PreparedData(str(out))


@task(**policy(Kind.DATA), enable_deck=True, deck_fields=())
@begun
def merge_shards(
    shards: list[PreparedData],
    stage: Preparation,
    recipe: Recipe,
    run: PipelineRun = ALONE,
    benchmarks: PreparedData | None = None,
) -> PreparedData:
    """Bring the shards together: what only all rows can tell is decided here."""

    def make(out: Path) -> None:
        pieces, compared = [local(one) for one in shards], _held_out(recipe, run, benchmarks)
        merge_pieces(pieces, *_rows(stage, recipe), out, **_options(recipe), benchmarks=compared)

    return _prepared(stage, recipe, run, benchmarks, make)


def _place(stage: Preparation, recipe: Recipe, run: PipelineRun) -> Path:
    return workspace(recipe, run) / "data" / stage.value


def _held_out(recipe: Recipe, run: PipelineRun, benchmarks: PreparedData | None) -> HeldOut:
    """What training rows are compared with: benchmarks that were given, or the recipe's own."""
    if benchmarks is not None:
        return held_out(recipe, local(benchmarks))
    if recipe.data.leaks == "none":
        return HeldOut(unchecked=["`data.leaks` is none, and no benchmarks were given"])
    return ready_benchmarks(recipe, _place(Preparation.EVALUATION, recipe, run))


def _rows(stage: Preparation, recipe: Recipe) -> tuple[list[Source], RowKind]:
    trained = Stage(stage.value)
    return recipe.stage(trained).sources, STAGES[trained].rows


def _options(recipe: Recipe) -> dict[str, Any]:
    return {"data": recipe.data, "seed": recipe.seed}


def _prepared(
    stage: Preparation,
    recipe: Recipe,
    run: PipelineRun,
    benchmarks: PreparedData | None,
    make: Callable[[Path], None],
) -> PreparedData:
    """Rows that are prepared in a folder; its small files are kept in an MLflow run and a deck."""
    out = _place(stage, recipe, run)
    is_all = stage is Preparation.EVALUATION
    sources = benchmark_sources(recipe) if is_all else _rows(stage, recipe)[0]

    def keep(log: RunLog) -> None:
        for manifest in sorted(out.rglob("manifest.json")):
            folder = manifest.parent
            for name in ("manifest.json", "quarantine.jsonl", "report.html"):
                log.artifact(folder / name, str(folder.relative_to(out.parent)))
            show(folder.name, folder / "report.html")
            print(summary_of(Manifest.read(folder), folder.name))

    once(
        f"{stage.value} data",
        recipe,
        run,
        out,
        tags={"siqvl.stage": stage.value},
        reads=[sources, local(benchmarks)],
        make=lambda _: make(out),
        keep=keep,
        atomic=not is_all,
    )
    return PreparedData(str(out))
