"""The first step of a pipeline: judge its recipe, open its MLflow run or go on in it.

It also hands the recipe to every step, each time with the hash of what that step depends on
(`tasks/cache_keys.py`). Flyte's cache looks at the hash in place of the recipe, so another
learning rate of stage 3 leaves the results of stages 1 and 2 as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from flytekit import HashMethod, task

from siqvl.check import check_recipe
from siqvl.errors import one_line
from siqvl.evaluation.control import control_recipe
from siqvl.recipe import Control, Recipe, Stage
from siqvl.recipe.compute import Kind
from siqvl.recipe.reading.changes import in_short
from siqvl.tracking.environment import keep_origin
from siqvl.tracking.heartbeat import PATIENCE, look
from siqvl.tracking.offline import TAG as OFFLINE
from siqvl.tracking.runs import (
    catch_up,
    changes_tags,
    end_open,
    end_run,
    reopen,
    run_log,
    search,
    start_run,
    tracking_uri,
)
from siqvl.tracking.store import within
from tasks.cache_keys import (
    look_again,
    prepared_benchmarks,
    prepared_rows,
    sampled_pairs,
    scored,
    trained,
)
from tasks.contracts import PipelineRun, on_cluster, workspace
from tasks.flyte_tags import EXECUTION, execution, flyte_tags
from tasks.given import begun
from tasks.once import marks
from tasks.resources import policy
from tasks.stopping import stoppable
from tasks.tracked import check_pod
from tasks.unfinished import new_name, pipeline_folder

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

#: Tags of runs: the folder of a pipeline, and MLflow's own that makes a run the child of another.
FOLDER, PARENT = "siqvl.folder", "mlflow.parentRunId"


def _of(key: Callable[..., str], stage: Stage) -> HashMethod:
    return HashMethod(partial(key, stage=stage))


class Opened(NamedTuple):
    """The MLflow parent run, and the recipe as each step's cache sees it."""

    run: PipelineRun
    benchmarks: Annotated[Recipe, HashMethod(prepared_benchmarks)]
    evaluation: Annotated[Recipe, HashMethod(scored)]
    pairs: Annotated[Recipe, HashMethod(sampled_pairs)]
    projector_alignment_data: Annotated[Recipe, _of(prepared_rows, Stage.PROJECTOR_ALIGNMENT)]
    projector_alignment: Annotated[Recipe, _of(trained, Stage.PROJECTOR_ALIGNMENT)]
    vqa_sft_data: Annotated[Recipe, _of(prepared_rows, Stage.VQA_SFT)]
    vqa_sft: Annotated[Recipe, _of(trained, Stage.VQA_SFT)]
    cot_sft_data: Annotated[Recipe, _of(prepared_rows, Stage.COT_SFT)]
    cot_sft: Annotated[Recipe, _of(trained, Stage.COT_SFT)]
    dpo_data: Annotated[Recipe, _of(prepared_rows, Stage.DPO)]
    dpo: Annotated[Recipe, _of(trained, Stage.DPO)]
    rlvr_data: Annotated[Recipe, _of(prepared_rows, Stage.RLVR)]
    rlvr: Annotated[Recipe, _of(trained, Stage.RLVR)]
    random_tower: Annotated[Recipe, _of(trained, Control.RANDOM_TOWER.stage)]
    random_tower_evaluation: Annotated[Recipe, HashMethod(scored)]
    likelihood_control: Annotated[Recipe, _of(trained, Control.LIKELIHOOD.stage)]
    likelihood_control_evaluation: Annotated[Recipe, HashMethod(scored)]


@task(**policy(Kind.DATA))
@begun
@stoppable()
def open_run(recipe: Recipe, fresh: bool = False) -> Opened:
    """Judge the whole recipe, then open the parent run; nothing else starts before.

    Args:
        fresh: whether a killed pipeline on this machine is not gone on with.
    """
    check_pod(recipe)
    check_recipe(recipe, families=not on_cluster())  # imports would cost a pod more than it
    look_again()
    name = new_name() if on_cluster() else pipeline_folder(recipe, fresh=fresh).name
    run = PipelineRun(name=name, run_id=_parent_run(recipe, name))
    _end_lost(recipe)
    seen: dict[str, Any] = dict.fromkeys(Opened._fields, recipe) | {"run": run}
    for control in recipe.evaluation.controls:
        seen |= dict.fromkeys(
            (control.value, f"{control}_evaluation"), control_recipe(recipe, control)
        )
    return Opened(**seen)


def _parent_run(recipe: Recipe, folder: str) -> str:
    """The MLflow run of a pipeline, opened, or again where the pipeline was killed before."""
    again = None if on_cluster() else _settled(recipe, folder)
    name = " ".join([recipe.name, folder.rpartition("-")[0], in_short(recipe.changes)]).rstrip()
    if again is None:
        if on_cluster():  # an attempt before this one has lost its pod
            end_open(recipe, {EXECUTION: execution(), "siqvl.kind": "pipeline"}, "KILLED")
        tags = {"siqvl.kind": "pipeline", FOLDER: folder, **_patience(recipe), **flyte_tags()}
        log = start_run(recipe, name, tags=tags)
    else:
        tags = {"siqvl.recipe_hash": recipe.hash(), **changes_tags(recipe), **flyte_tags()}
        log = reopen(recipe, name, again.info.run_id, tags)
    if again is None or not again.data.params:
        log.params(recipe.model_dump(mode="json"))
    keep_origin(log, recipe)
    log.flush()
    return log.run_id


def _end_lost(recipe: Recipe) -> None:
    """Close what earlier executions left open that are over; a store that is away has time."""
    uri, patience = tracking_uri(recipe), recipe.tracking.patience_seconds
    try:
        within(patience, uri, look)
    except Exception as error:
        logger.warning("runs that may be lost are left as they are: %s", one_line(error))


def _patience(recipe: Recipe) -> dict[str, str]:
    """How long the run of a pipeline on a cluster may be silent: its pods may wait for nodes."""
    hours = recipe.compute.waiting_hours
    return {PATIENCE: f"{hours * 3600}" if hours else "inf"} if on_cluster() else {}


def _settled(recipe: Recipe, name: str) -> Run | None:
    """The MLflow run of a killed pipeline, whose children get their true ends."""
    catch_up(recipe)
    parent = next(iter(search(recipe, {FOLDER: name})), None)
    if parent is None:
        return None
    steps = marks(workspace(recipe, PipelineRun(name=name))).values()
    done = {mark.mlflow_run for mark in steps if mark.made is not None}
    for child in search(recipe, {PARENT: parent.info.run_id}):
        log = run_log(recipe, child.info.run_id)
        if done & {log.run_id, child.data.tags.get(OFFLINE)}:
            if child.info.status != "FINISHED":
                end_run(log, "FINISHED")
        elif child.info.status == "RUNNING":
            end_run(log, "KILLED")
    return parent
