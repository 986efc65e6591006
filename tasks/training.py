"""What the training tasks share: how they are declared, and a run around `siqvl.training.stage`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flytekit import task

from siqvl.recipe import Recipe, Stage
from siqvl.recipe.compute import Kind
from siqvl.registry.versions import CHECKPOINT, Registry, keep_model
from siqvl.tracking.runs import RunLog
from siqvl.training.resuming import is_first_process
from siqvl.training.stage import train_stage
from tasks.contracts import Checkpoint, PipelineRun, PreparedData, local, workspace
from tasks.preemption import states_kept
from tasks.resources import cached, policy
from tasks.tracked import tracked


def training_task(function: Callable[..., Checkpoint]) -> Any:
    """Declare a function as the Flyte task of a training stage."""
    return task(**policy(Kind.TRAINING), cache=cached())(function)


def train(
    stage: Stage,
    recipe: Recipe,
    run: PipelineRun,
    data: PreparedData,
    checkpoint: Checkpoint | None = None,
) -> Checkpoint:
    """Train one stage inside its MLflow run and hand its checkpoint on.

    Of several processes that torch elastic started, the first tracks and keeps states.
    """
    name = run_name(stage, recipe.model.random_tower)
    out = workspace(recipe, run) / "checkpoints" / name
    rows, parent = local(data), local(checkpoint)
    first = is_first_process()
    with ExitStack() as open_until_done:
        log, copies = None, 0
        if first:
            tags = {"siqvl.stage": stage.value}
            log = open_until_done.enter_context(tracked(recipe, name, run, tags))
            copies = open_until_done.enter_context(states_kept(out))
        card = train_stage(
            stage,
            recipe,
            data=rows,
            checkpoint=parent,
            output=out,
            log=log,
            state_copies=copies,
        )
        if log is not None:
            log.metrics(card.metrics)
            log.tags({CHECKPOINT: card.hash})
            _keep(out, recipe, log)
            log.artifact(rows / "manifest.json", "data")
    return Checkpoint(str(out))


def _keep(checkpoint: Path, recipe: Recipe, log: RunLog) -> None:
    """A version in the model registry; the control of stage 1 is no model for anybody to serve."""
    if recipe.model.random_tower:
        log.artifact(checkpoint, "checkpoint")
    else:
        keep_model(log, checkpoint, Registry(log.uri, recipe.tracking.model_name))


def run_name(stage: Stage, random_tower: bool) -> str:
    """The name of a stage's run and folder; the control of stage 1 lies beside stage 1 itself."""
    return stage.value + ("-random_tower" if random_tower else "")
