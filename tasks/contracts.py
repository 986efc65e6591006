"""What passes between tasks.

Every artifact is a directory with a manifest, so that it can be judged without loading it:
`PreparedData` (`manifest.json`), `Checkpoint` (`siqvl.json`), `EvalReport` (`scores.json`),
`PipelineReport` (`gates.json`).
The recipe travels with every call; its default is the tiny one, so each task runs with no argument
but its inputs.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from flytekit import current_context
from flytekit.types.directory import FlyteDirectory
from pydantic import BaseModel, ConfigDict

from siqvl.recipe import Recipe, Stage
from siqvl.training.checkpoints import read_card

PreparedData = FlyteDirectory
Checkpoint = FlyteDirectory
EvalReport = FlyteDirectory
PipelineReport = FlyteDirectory

ROOT = Path(__file__).resolve().parent.parent
TINY = Recipe.load(ROOT / "recipes" / "tiny.yaml")


class Preparation(StrEnum):
    """What `data_prep` prepares: the rows of one training stage, or all benchmarks."""

    PROJECTOR_ALIGNMENT = Stage.PROJECTOR_ALIGNMENT.value
    VQA_SFT = Stage.VQA_SFT.value
    COT_SFT = Stage.COT_SFT.value
    DPO = Stage.DPO.value
    EVALUATION = "evaluation"


class PipelineRun(BaseModel):
    """One execution of the pipeline; tasks that run alone have none (an empty `run_id`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "single"
    run_id: str = ""  # MLflow parent run

    @property
    def parent(self) -> str | None:
        """The MLflow run that stage runs are children of."""
        return self.run_id or None


ALONE = PipelineRun()


def on_cluster() -> bool:
    """Whether this process is a pod of a Flyte cluster."""
    return bool(os.environ.get("FLYTE_INTERNAL_EXECUTION_ID"))


def workspace(recipe: Recipe, run: PipelineRun) -> Path:
    """Where a task writes: the recipe's output directory here, the pod's scratch on a cluster."""
    if on_cluster():
        return Path(current_context().working_directory) / recipe.name
    return Path(recipe.output_dir) / recipe.name / run.name


def local(directory: FlyteDirectory) -> Path:
    """The directory on this machine, fetched first when it is remote."""
    return Path(directory.download())


def local_if_given(directory: FlyteDirectory | None) -> Path | None:
    """The same for an input that may be left out."""
    return None if directory is None else local(directory)


def stage_of(checkpoint: Path) -> Stage:
    """The stage a checkpoint directory is of."""
    return read_card(checkpoint).stage
