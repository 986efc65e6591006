"""What the training tasks share: how they are declared, and a run around `siqvl.training.stage`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from flytekit import task

from siqvl.checkpoint import read_card
from siqvl.recipe import Control, Recipe, Stage
from siqvl.recipe.compute import Kind
from siqvl.registry.versions import CHECKPOINT, Registry, keep_model
from siqvl.report.loss_page import keep_loss_page
from siqvl.stages import STAGES
from siqvl.tracking.runs import RunLog
from siqvl.training.loop.stop_request import Stopped, standing, training_process
from siqvl.training.stage import train_stage
from tasks.contracts import (
    Checkpoint,
    PipelineRun,
    PreparedData,
    local,
    shared_workspace,
    workspace,
)
from tasks.decks import live, live_page
from tasks.given import begun
from tasks.once import once
from tasks.pod_start import import_at_once
from tasks.preemption import grace, states_kept
from tasks.resources import cached, policy
from tasks.stopping import give_up

logger = logging.getLogger(__name__)


def training_task(function: Callable[..., Checkpoint]) -> Any:
    """Declare a function as the Flyte task of a training stage."""
    return task(**training_policy())(begun(function))


def training_policy() -> dict[str, Any]:
    """Return the arguments of `@task` for whatever trains a stage; it has a live deck."""
    deck = {"enable_deck": True, "deck_fields": ()}
    return {**policy(Kind.TRAINING), "cache": cached(), **deck}


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
    control = trained_control(stage, recipe)
    name = run_name(stage, control)
    out = workspace(recipe, run) / "checkpoints" / name
    beside = shared_workspace(recipe, run) / "checkpoints" / name
    rows, parent = local(data), local(checkpoint)
    page = live_page(recipe, run, name)

    def make(log: RunLog | None) -> None:
        import_at_once("siqvl.training.stage_process", *([] if control else ["mlflow.pyfunc"]))
        standing.begins(0)
        keeping = states_kept(beside, grace(recipe)) if log else nullcontext(0)
        try:
            # the last state is kept before anything else is done
            with live(STAGES[stage].title, page), keeping as copies:
                inputs = {"data": rows, "checkpoint": parent, "output": out, "page": page}
                inputs |= {"states_beside": beside, "state_copies": copies, "grace": grace(recipe)}
                train_stage(stage, recipe, **inputs, log=log)
        except Stopped:
            if log:
                logger.warning("`%s` ends here: %s", name, standing)
            raise

    def keep(log: RunLog) -> None:
        keep_loss_page(log, out)
        card = read_card(out)
        log.metrics(card.metrics)
        log.tags({CHECKPOINT: card.hash})
        _keep(out, control, recipe, log)
        log.artifact(rows / "manifest.json", "data")

    tags = run_tags(stage, control)
    with training_process(give_up):
        once(name, recipe, run, out, tags=tags, reads=[rows, parent], make=make, keep=keep)
    return Checkpoint(str(out))


def _keep(checkpoint: Path, control: Control | None, recipe: Recipe, log: RunLog) -> None:
    """A version in the model registry; a control is no model for anybody to serve."""
    if control is not None:
        log.artifact(checkpoint, "checkpoint")
    else:
        keep_model(log, checkpoint, Registry(log.uri, recipe.tracking.model_name))


def trained_control(stage: Stage, recipe: Recipe) -> Control | None:
    """Which control a recipe trains in a stage; None: the stage itself."""
    if recipe.model.random_tower:
        return Control.RANDOM_TOWER
    marked = stage is Control.LIKELIHOOD.stage and recipe.stages.dpo.likelihood_control
    return Control.LIKELIHOOD if marked else None


def run_name(stage: Stage, control: Control | None) -> str:
    """The name of a stage's run and folder; a control lies beside its stage."""
    return stage.value + (f"-{control}" if control else "")


def run_tags(stage: Stage, control: Control | None) -> dict[str, str]:
    """Tags of a run that tell what it is about."""
    tags = {"siqvl.stage": stage.value}
    return tags | {"siqvl.control": control.value} if control else tags
