"""Four stages trained once, at two steps each, for all tests of this folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from siqvl.data.prepare import prepare
from siqvl.recipe import Recipe, Stage
from siqvl.training.run import train_stage
from siqvl.training.stages import STAGES


@dataclass(frozen=True)
class Trained:
    """Where the data and the checkpoint of each stage are."""

    recipe: Recipe
    folder: Path

    def data(self, stage: Stage) -> Path:
        return self.folder / "data" / stage.value

    def checkpoint(self, stage: Stage) -> Path:
        return self.folder / "checkpoints" / stage.value

    def parent(self, stage: Stage) -> Path | None:
        parent = STAGES[stage].parent
        return self.checkpoint(parent) if parent else None


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, small_recipe: Callable[..., Recipe]
) -> Trained:
    folder = tmp_path_factory.mktemp("stages")
    pipeline = Trained(small_recipe(folder), folder)
    for stage in Stage:
        prepare(
            pipeline.recipe.stage(stage).sources,
            STAGES[stage].rows,
            pipeline.data(stage),
            data=pipeline.recipe.data,
            seed=0,
        )
        train_stage(
            stage,
            pipeline.recipe,
            data=pipeline.data(stage),
            checkpoint=pipeline.parent(stage),
            output=pipeline.checkpoint(stage),
        )
    return pipeline
