"""What passes between tasks.

Every artifact is a directory with a manifest, so that it can be judged without loading it:
`PreparedData` (`manifest.json`), `Checkpoint` (`siqvl.json`), `EvalReport` (`scores.json`),
`PipelineReport` (`gates.json`). Flyte's cache knows an artifact by its content (`HashMethod`), not
by where it lies.
The recipe travels with every call; where a user starts a task its default is the tiny one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, overload

from flytekit import HashMethod
from flytekit.types.directory import FlyteDirectory
from pydantic import BaseModel, ConfigDict

from siqvl.checkpoint import verify_checkpoint
from siqvl.data.content import content_of
from siqvl.errors import UserError
from siqvl.files import expanded, folder_hash
from siqvl.recipe import Recipe, Stage
from tasks.default_recipe import TINY as TINY
from tasks.undelivered import on_pods_disk


@overload
def local(directory: None) -> None: ...
@overload
def local(directory: FlyteDirectory) -> Path: ...
def local(directory: FlyteDirectory | None) -> Path | None:
    """The directory on this machine, fetched first when it is remote; None of an input left out."""
    return None if directory is None else Path(directory.download())


def _hash_of(content: Callable[[Path], str], directory: FlyteDirectory) -> str | None:
    """What Flyte's cache goes by; what is no artifact of the kind is for the task to judge.

    A directory that is still in the blob store, as one named on the command line, goes by its
    address: it is not fetched for this.
    """
    if directory.remote_source or "://" in str(directory.path):
        return None  # no hash
    try:
        return content(Path(directory.path))
    except UserError:
        return None


def _hash_by(content: Callable[[Path], str]) -> HashMethod:
    # A directory keeps its annotation, and goes to training processes by pickle.
    return HashMethod(partial(_hash_of, content))


def _model(folder: Path) -> str:
    card = verify_checkpoint(folder)
    return f"{card.stage}-{card.hash}"


#: Of a pod: the name of its execution.
IN_EXECUTION = "FLYTE_INTERNAL_EXECUTION_ID"

PreparedData = Annotated[FlyteDirectory, _hash_by(content_of)]
Checkpoint = Annotated[FlyteDirectory, _hash_by(_model)]
EvalReport = Annotated[FlyteDirectory, _hash_by(folder_hash)]
PipelineReport = FlyteDirectory


class Preparation(StrEnum):
    """What `data_prep` prepares: the rows of one training stage, or all benchmarks."""

    # Flyte 1 hands over the values of an enum, and Flyte 2 the names: these are the same.
    projector_alignment = Stage.PROJECTOR_ALIGNMENT.value
    vqa_sft = Stage.VQA_SFT.value
    cot_sft = Stage.COT_SFT.value
    dpo = Stage.DPO.value
    rlvr = Stage.RLVR.value
    evaluation = "evaluation"
    PROJECTOR_ALIGNMENT = projector_alignment
    VQA_SFT = vqa_sft
    COT_SFT = cot_sft
    DPO = dpo
    RLVR = rlvr
    EVALUATION = evaluation


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
    """Whether this process is a pod of a Flyte cluster; Flyte 2 gives it other names."""
    names = ("RUN_NAME", "ACTION_NAME", "FLYTE_INTERNAL_EXECUTION_PROJECT")
    is_of_flyte_2 = all(os.environ.get(name) for name in names)
    return is_of_flyte_2 or bool(os.environ.get(IN_EXECUTION))


if on_cluster():
    on_pods_disk()


def workspace(recipe: Recipe, run: PipelineRun) -> Path:
    """Where a task writes: the recipe's output directory here, the pod's scratch on a cluster."""
    if not on_cluster():
        return expanded(recipe.output_dir) / recipe.name / run.name
    return expanded(tempfile.gettempdir()) / "siqvl" / recipe.name / run.name


def shared_workspace(recipe: Recipe, run: PipelineRun) -> Path:
    """Where training keeps what all of its processes need: its resumable states.

    On several machines that is below the folder that they share, and all attempts of an execution
    find it; a task that runs alone has its own for each execution. Elsewhere it is `workspace`.
    """
    if not on_cluster() or recipe.distributed.nodes == 1:
        return workspace(recipe, run)
    name = os.environ[IN_EXECUTION] if run.name == ALONE.name else run.name
    return expanded(str(recipe.distributed.shared_dir)) / "siqvl" / recipe.name / name
