"""The registry is a part of the MLflow store: its tests have the store that those of runs have."""

from collections.abc import Callable
from pathlib import Path

import pytest

from siqvl.recipe import Recipe, Stage
from siqvl.registry.promotion import make_candidate
from siqvl.registry.versions import CHECKPOINT, Registry
from siqvl.tracking.runs import start_run
from tests.made_checkpoint import hash_of, made_checkpoint
from tests.tracking.conftest import recipe, store
from tests.written_reports import write_report

__all__ = ["recipe", "store"]

BENCHMARK = "vqa"
Scored = tuple[int, Path]  # a version's number and report


@pytest.fixture
def registry(recipe: Recipe, request: pytest.FixtureRequest) -> Registry:
    return Registry(recipe.tracking.uri or "", request.node.name)


@pytest.fixture
def candidate(recipe: Recipe, registry: Registry, tmp_path: Path) -> Callable[..., Scored]:
    """What a pipeline does with its last checkpoint, which is right so often, of 1,000."""

    def run(
        name: str,
        right: int,
        *,
        floor: int = 250,
        first: int = 0,
        data: str = "",
        benchmark: str | None = BENCHMARK,
    ) -> Scored:
        log = start_run(recipe, f"pipeline {name}")
        folder = tmp_path / log.run_id
        checkpoint = made_checkpoint(folder / "checkpoint", recipe, name)
        report = write_report(
            folder / "scores",
            Stage.DPO,
            {
                (BENCHMARK, player): {f"q{first + n}": float(n < share) for n in range(1000)}
                for player, share in (("picture", right), ("question_only", floor))
            },
            checkpoint_hash=hash_of(name),
            data_fingerprint=data,
        )
        known = registry.find({CHECKPOINT: hash_of(name)})
        number = known.number if known else registry.register(log, checkpoint)
        make_candidate(log, registry, number, report, benchmark)
        return number, report

    return run
