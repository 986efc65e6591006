"""The small stage `rlvr`: a few questions, and a model that nobody has trained to answer them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Recipe, Stage
from siqvl.stages import freeze
from siqvl.training.rewards.grpo import RewardTrainer
from siqvl.training.rows import encoded_rows
from tests.quick import made_once
from tests.small_checkpoint import small_checkpoint
from tests.small_recipe import ROOT, small_recipe


@dataclass(frozen=True)
class Small:
    """Where prepared questions and a checkpoint are."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def recipe(self, folder: Path | None = None, **figures: Any) -> Recipe:
        """Two steps of two groups of four; the shorter a completion, the more it earns."""
        content = small_recipe(folder or self.folder).model_dump(mode="json")
        stage = Recipe.load(ROOT / "recipes" / "rewards.yaml").stages.rlvr
        assert stage is not None
        content["stages"]["rlvr"] = stage.model_dump(mode="json") | {
            "max_steps": 2,
            "batch_size": 8,
            "accumulation": 1,
            "group_size": 4,
            "sampling_rounds": 1,
            "max_new_tokens": 24,
            "sampling_temperature": 2.0,  # so that the answers differ
            "rewards": {"answer": 1.0, "length": 1.0},
            "free_tokens": 1,
            "precision": "fp32",
            "cached_features": False,
            "logging_steps": 1,
        }
        content["stages"]["rlvr"]["sources"][0]["max_samples"] = 12
        content["stages"]["rlvr"] |= figures
        return Recipe.model_validate(content)

    def trainer(self, work_dir: Path, **figures: Any) -> RewardTrainer:
        """A trainer as `train_stage` builds one, but at hand."""
        recipe = self.recipe(work_dir, **figures)
        dataset, manifest = load_prepared(self.data, RowKind.EVALUATION, verify=False)
        model, processor = load_checkpoint(self.checkpoint, attn_implementation="eager")
        stage = recipe.stage(Stage.RLVR)
        freeze(model, stage.trainable)
        return RewardTrainer.over(
            model,
            processor,
            encoded_rows(recipe, Stage.RLVR, dataset, processor),
            stage=stage,
            recipe=recipe,
            manifest=manifest,
            work_dir=work_dir,
            callbacks=[],
        )


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    def make(folder: Path) -> None:
        made = Small(folder)
        recipe = made.recipe()
        small_checkpoint(folder, stage=Stage.COT_SFT)
        sources = recipe.stage(Stage.RLVR).sources
        prepare(sources, RowKind.EVALUATION, made.data, data=recipe.data, seed=0)

    return Small(made_once(tmp_path_factory, "rewards", make))
