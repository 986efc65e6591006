"""The body of a training process: model and rows, a trainer over them, and what it leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainerCallback, set_seed

from siqvl.checkpoint import CheckpointCard, read_card, training_history, write_checkpoint
from siqvl.data.encoded import EncodedDataset
from siqvl.data.manifest import Manifest
from siqvl.data.shards import load_prepared
from siqvl.device import attention_of, best_device, precision_of, set_up
from siqvl.errors import UserError
from siqvl.model.assemble import assemble, load_checkpoint
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.model.progress_bars import bars_on_terminals_alone
from siqvl.recipe import DPOStage, Recipe, RewardStage, SFTStage, Stage
from siqvl.recipe.reading.shipped import shipped
from siqvl.stages import STAGES
from siqvl.tensor_store import TensorStore
from siqvl.tracking.runs import RunLog
from siqvl.training.figures.live_page import LivePage
from siqvl.training.figures.metric_logger import MetricLogger
from siqvl.training.figures.progress import Progress
from siqvl.training.learning import let_learn
from siqvl.training.loop.compiled import compile_layers
from siqvl.training.loop.freed_memory import freed_memory_kept
from siqvl.training.loop.planned import PlannedTrainer
from siqvl.training.memory.batch_memory import tell_memory
from siqvl.training.memory.batch_shape import BatchShape
from siqvl.training.places import clear_places, own_place
from siqvl.training.preference.dpo import PreferenceTrainer
from siqvl.training.resuming import (
    all_state_folders,
    is_first_process,
    is_usable,
    keep_threads,
)
from siqvl.training.rows import LONGEST_WAIT, encoded_rows, plan_metrics, tower_features
from siqvl.training.samples.sample_answers import SampleAnswers
from siqvl.training.sft import SFTTrainer
from siqvl.version import code_version


@dataclass(frozen=True)
class StageInputs:
    """Everything a training process needs; picklable."""

    stage: Stage
    recipe: Recipe
    data: Path
    checkpoint: Path | None
    output: Path
    states: Path  # folder of the resumable ones, of all attempts
    log: RunLog | None
    state_copies: int = 0  # of states, that others keep on the same disk
    page: Path | None = None  # of its progress
    states_beside: Path | None = None  # the path that folders of states are named by; None: output
    grace: float | None = None  # seconds, when it is told to end


def train(inputs: StageInputs) -> None:
    """Train a stage in this process, one of several that do the same; the first of them writes."""
    with _own_place(inputs) as (place, state):
        _train(inputs, place, state)
    if is_first_process():
        for folder in all_state_folders(inputs.states_beside or inputs.output):
            clear_places(folder, place)


@contextmanager
def _own_place(inputs: StageInputs) -> Iterator[tuple[Path, Path | None]]:
    """Where this attempt keeps states, and the one it goes on from: the same in every process."""
    with ExitStack() as held:
        names: list[str | None] = [None, None]
        if is_first_process():
            judge = partial(is_usable, changed_code=inputs.recipe.changed_code)
            place, state = held.enter_context(own_place(inputs.states, judge))
            names = [place.name, state.name if state else None]
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            PartialState(cpu=best_device() == "cpu", timeout=LONGEST_WAIT)
            broadcast_object_list(names)
        place = inputs.states / str(names[0])
        if inputs.recipe.distributed.nodes > 1:
            _check_shared(inputs.recipe, place)
        yield place, place / names[1] if names[1] else None


def _check_shared(recipe: Recipe, place: Path) -> None:
    """Look from every process for what the first one has made; all of them end alike.

    Raises:
        UserError: machines have folders of their own there.
    """
    blind = [rank for rank, sees in enumerate(gather_object([place.is_dir()])) if not sees]
    if blind:
        raise UserError(
            f"distributed.shared_dir is {recipe.distributed.shared_dir}, but that is not one "
            f"folder for all machines: training process {blind[0]} does not see what process 0 "
            "wrote there; mount one volume (ReadWriteMany) there in every pod of a training task"
        )


def _train(inputs: StageInputs, place: Path, state: Path | None) -> None:
    recipe, stage = inputs.recipe, inputs.stage
    set_seed(recipe.seed)
    parent = read_card(inputs.checkpoint) if inputs.checkpoint else None
    # `train_stage` has judged both already, and compared the checksums once for all processes.
    dataset, manifest = load_prepared(inputs.data, STAGES[stage].rows, verify=False)
    figures = recipe.stage(stage)
    precision = precision_of(figures)
    set_up(recipe, precision)
    keep_threads(state)
    bars_on_terminals_alone()
    model, processor = _load_model(recipe, inputs.checkpoint, attention_of(recipe, stage))
    counts = let_learn(model, recipe, figures, precision)
    if figures.compile:
        compile_layers(model)
    encoded = encoded_rows(recipe, stage, dataset, processor)
    features = tower_features(recipe, stage, encoded, dataset, model, processor)
    trainer = _build_trainer(inputs, place, model, processor, encoded, features, manifest)
    trainer.state_copies, trainer.grace = inputs.state_copies, inputs.grace
    data_metrics: dict[str, float] = {}
    if trainer.is_world_process_zero():
        # packing every epoch of a large run takes a while, and only one process reports it
        data_metrics = plan_metrics(trainer.loader.plan, encoded.left_out)
        if inputs.log:
            inputs.log.metrics(data_metrics)
        if not isinstance(figures, RewardStage):  # whose batches no plan knows
            shape = BatchShape.largest(trainer.loader.plan, trainer.telemetry.items)
            tell_memory(model, shape, figures, recipe, precision)
    page = _page(inputs, trainer)
    samples = SampleAnswers.of(trainer, recipe, dataset, encoded, processor, precision, inputs.log)
    if samples is not None and page is not None:
        samples.told.append(page.answered)
    with freed_memory_kept():
        result = trainer.train(resume_from_checkpoint=str(state) if state else None)
    if trainer.mean is not None:
        trainer.mean.to_model()
    if samples is not None:
        samples.take(trainer.state.global_step)
    if page is not None:
        page.write(trainer.state)
    weights = None
    if trainer.is_fsdp_enabled:  # has shared them out: every process takes part in gathering them
        weights = trainer.accelerator.get_state_dict(trainer.model)
    if trainer.is_world_process_zero():
        write_checkpoint(
            inputs.output,
            trainer.accelerator.unwrap_model(trainer.model),
            processor,
            **_learnt(inputs, trainer, parent, weights),
            stage=stage,
            parent=parent,
            recipe=recipe,
            data_fingerprint=manifest.fingerprint,
            code_version=code_version(),
            mlflow_run=inputs.log.run_id if inputs.log else None,
            metrics=_metrics(result.metrics, encoded, counts) | data_metrics,
            history=training_history(trainer.state.log_history),
        )
    trainer.accelerator.wait_for_everyone()


def _learnt(
    inputs: StageInputs,
    trainer: PlannedTrainer,
    parent: CheckpointCard | None,
    weights: dict[str, torch.Tensor] | None,
) -> dict[str, Any]:
    """What a checkpoint is written of: weights as they are, or with adapters merged, and these."""
    stage = trainer.stage
    if stage.adapter is None:
        return {"weights": weights}
    from siqvl.adapters.merged_weights import merged_weights
    from siqvl.adapters.peft_format import write_adapter

    assert inputs.checkpoint is not None  # the recipe has seen to that
    assert parent is not None
    model = trainer.accelerator.unwrap_model(trainer.model)
    keep = partial(write_adapter, model=model, stage=stage, parent=parent.hash, weights=weights)
    return {
        "weights": merged_weights(model, inputs.checkpoint, weights),
        "write_adapter": keep,
    }


def _page(inputs: StageInputs, trainer: PlannedTrainer) -> LivePage | None:
    """Add the page to a trainer, in the process that writes it."""
    if inputs.page is None or not trainer.is_world_process_zero():
        return None
    page = LivePage(inputs.page, inputs.stage, inputs.recipe)
    trainer.add_callback(page)
    return page


def _metrics(
    trained: dict[str, float], encoded: EncodedDataset, counts: dict[str, int]
) -> dict[str, float]:
    """What a checkpoint's card says of its training."""
    kept = ("train_loss", "train_runtime", "train_samples_per_second")
    metrics = {key: float(value) for key, value in trained.items() if key in kept}
    left_out = float(sum(encoded.left_out.values()))
    metrics |= {"rows": float(len(encoded)), "rows_left_out": left_out}
    return metrics | {f"trainable_{part}": float(count) for part, count in counts.items()}


def _load_model(
    recipe: Recipe, checkpoint: Path | None, attention: str
) -> tuple[SiQVLForConditionalGeneration, SiQVLProcessor]:
    """The parent checkpoint, or the parts assembled; float32 weights, autocast does the rest."""
    spec = recipe.model
    rest = spec.model_dump(exclude={"vision", "language", "attention"})
    try:
        if checkpoint is not None:
            return load_checkpoint(checkpoint, attn_implementation=attention)
        vision, language = (str(shipped(name)) for name in (spec.vision, spec.language))
        return assemble(vision, language, attn_implementation=attention, **rest)
    except (ValueError, OSError) as error:  # what transformers raises for a wrong or missing part
        raise UserError(" ".join(str(error).split())) from error


def _kind(stage: SFTStage) -> type[PlannedTrainer]:
    if isinstance(stage, RewardStage):
        from siqvl.training.rewards.grpo import RewardTrainer  # imports trl

        return RewardTrainer
    return PreferenceTrainer if isinstance(stage, DPOStage) else SFTTrainer


def _build_trainer(
    inputs: StageInputs,
    place: Path,
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    encoded: EncodedDataset,
    features: TensorStore | None,
    manifest: Manifest,
) -> PlannedTrainer:
    stage = inputs.recipe.stage(inputs.stage)
    callbacks: list[TrainerCallback] = [Progress(STAGES[inputs.stage].title)]
    if inputs.log:
        callbacks.append(MetricLogger(inputs.log))
    kind = _kind(stage)
    return kind.over(
        model,
        processor,
        encoded,
        stage=stage,
        recipe=inputs.recipe,
        manifest=manifest,
        work_dir=place,
        callbacks=callbacks,
        features=features,
    )
