"""Run one training stage: judge its inputs, start the training processes, read what they wrote."""

from __future__ import annotations

import json
from pathlib import Path

from siqvl.check import check_model
from siqvl.checkpoint import CheckpointCard, read_card, verify_checkpoint
from siqvl.data.manifest import Manifest
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.recipe import Model, Recipe, Stage
from siqvl.stages import STAGES
from siqvl.tracking.environment import keep_origin
from siqvl.tracking.inputs import log_inputs
from siqvl.tracking.runs import RunLog
from siqvl.training.loop.launch import launch
from siqvl.training.prepared_sources import sources_of
from siqvl.training.resuming import is_first_process, judge_states, state_folder

#: Keys of `model` that a checkpoint has in it, beside weights, whose names may be spelt otherwise.
ASSEMBLED = {"pixel_shuffle_factor", "max_image_tokens", "system_prompt", "thinking"}


def train_stage(
    stage: Stage,
    recipe: Recipe,
    *,
    data: Path,
    checkpoint: Path | None,
    output: Path,
    log: RunLog | None = None,
    states_beside: Path | None = None,
    state_copies: int = 0,
    page: Path | None = None,
    grace: float | None = None,
) -> CheckpointCard | None:
    """Train `stage` and write its checkpoint to `output`.

    Its card is returned, but on machines where the first process is not, which have no checkpoint.

    Args:
        states_beside: what resumable states lie beside, in place of `output`; several machines
            share its folder.
        state_copies: more states than the stage's own that the caller keeps on the same disk.
        page: the file of a page of its progress (`siqvl/training/figures/live_page.py`).
        grace: seconds that it has when it is told to end; None: as long as a state takes.

    Raises:
        UserError: the data or the checkpoint is not what this stage needs, the recipe asks for
            another model than the checkpoint's, or other code wrote the state that it would go on
            from; nothing was started.
        Stopped: it was told to end.
    """
    parent = _check_parent(stage, checkpoint)
    if parent is not None:
        _check_model_of(parent, recipe)
    if parent is None:
        check_model(recipe.model)
    # torch is loaded here, and not with every workflow
    from siqvl.adapters.quantize import check_quantize
    from siqvl.device import attention_of

    attention_of(recipe, stage)
    check_quantize(recipe, stage)
    _, manifest = load_prepared(data, STAGES[stage].rows)
    sources_of(recipe.stage(stage), manifest)
    beside = states_beside or output
    states = state_folder(beside, recipe, stage, parent.hash if parent else None, manifest)
    judge_states(states, beside, recipe.changed_code)
    if log:
        keep_origin(log, recipe)
        log_inputs(log, data, "training")
        log.params(_params(stage, recipe, manifest, parent))
    from siqvl.training.stage_process import StageInputs, train

    given = (stage, recipe, data, checkpoint, output, states, log, state_copies, page)
    inputs = StageInputs(*given, states_beside=states_beside, grace=grace)
    launch(train, inputs, recipe.distributed, grace)
    if states_beside not in (None, output) and not is_first_process():
        return None
    return read_card(output, expected=stage)


def _params(
    stage: Stage, recipe: Recipe, manifest: Manifest, parent: CheckpointCard | None
) -> dict[str, object]:
    """What a stage's run says of what it was trained by."""
    return {
        "stage": stage.value,
        "recipe": recipe.stage(stage).model_dump(mode="json"),
        "model": recipe.model.model_dump(mode="json"),
        "seed": recipe.seed,
        "data_fingerprint": manifest.fingerprint,
        "data_rows": manifest.rows,
        "parent_checkpoint": parent.hash if parent else "none",
    }


def _check_parent(stage: Stage, checkpoint: Path | None) -> CheckpointCard | None:
    parents = STAGES[stage].parents
    if not parents:
        if checkpoint is not None:
            raise UserError(f"stage `{stage}` assembles the model itself and takes no checkpoint")
        return None
    if checkpoint is None:
        of = " or ".join(f"`{parent}`" for parent in parents)
        raise UserError(f"stage `{stage}` continues from a {of} checkpoint; none was given")
    return verify_checkpoint(checkpoint, expected=parents)


def _check_model_of(parent: CheckpointCard, recipe: Recipe) -> None:
    """Judges whether a recipe asks for what was decided when the model was assembled.

    A checkpoint keeps its own chat template and grid: another value would change nothing, and stand
    in the card of the new one.

    Raises:
        UserError: it asks for something else.
    """
    # recipes of before a later key have it not, and those of another day may call keys otherwise
    kept = dict.fromkeys(Model.LATER) | (parent.recipe.get("model") or {})
    for key in sorted(ASSEMBLED & kept.keys()):
        was, now = kept[key], getattr(recipe.model, key)
        if was != now and {was, now} != {None, False}:  # of `thinking`, which say the same
            raise UserError(
                f"model.{key} is {json.dumps(now)}, but the checkpoint of stage `{parent.stage}` "
                f"was assembled with {json.dumps(was)}, and keeps it: set it to that, or begin at "
                "stage 1"
            )
