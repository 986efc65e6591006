"""Run one training stage: judge its inputs, train, save a checkpoint that names its parent."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siqvl.check import check_model
from siqvl.checkpoint import CheckpointCard, read_card, training_history, write_checkpoint
from siqvl.data.manifest import Manifest
from siqvl.data.shards import load_prepared
from siqvl.device import resolve_attention, resolve_precision, set_up
from siqvl.errors import UserError
from siqvl.recipe import DPOStage, Model, Recipe, Stage
from siqvl.report.loss_page import keep_loss_page
from siqvl.stages import STAGES, freeze
from siqvl.tracking.environment import keep_origin
from siqvl.tracking.inputs import log_inputs
from siqvl.tracking.runs import RunLog
from siqvl.training.loop.compiled import compile_layers
from siqvl.training.loop.launch import launch
from siqvl.training.memory.batch_shape import BatchShape
from siqvl.training.rows import encoded_rows, plan_metrics, tower_features
from siqvl.version import code_version

if TYPE_CHECKING:
    from siqvl.data.encoded import EncodedDataset
    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor
    from siqvl.tensor_store import TensorStore
    from siqvl.training.preference.dpo import PreferenceTrainer
    from siqvl.training.sft import SFTTrainer


@dataclass(frozen=True)
class StageInputs:
    """Everything a training process needs; picklable."""

    stage: Stage
    recipe: Recipe
    data: Path
    checkpoint: Path | None
    output: Path
    log: RunLog | None


def train_stage(
    stage: Stage,
    recipe: Recipe,
    *,
    data: Path,
    checkpoint: Path | None,
    output: Path,
    log: RunLog | None = None,
) -> CheckpointCard:
    """Train `stage` and write its checkpoint to `output`.

    Raises:
        UserError: the data or the checkpoint is not what this stage needs; nothing was started.
    """
    parent = _check_parent(stage, checkpoint)
    if parent is None:
        check_model(recipe.model)
    attention_of(recipe, stage)
    _, manifest = load_prepared(data, STAGES[stage].rows)
    if log:
        keep_origin(log, recipe)
        log_inputs(log, data, "training")
        log.params(
            {
                "stage": stage.value,
                "recipe": recipe.stage(stage).model_dump(mode="json"),
                "model": recipe.model.model_dump(mode="json"),
                "seed": recipe.seed,
                "data_fingerprint": manifest.fingerprint,
                "data_rows": manifest.rows,
                "parent_checkpoint": parent.hash if parent else "none",
            }
        )
    launch(_train, StageInputs(stage, recipe, data, checkpoint, output, log), recipe.distributed)
    if log:
        keep_loss_page(log, output)
    return read_card(output, expected=stage)


def _check_parent(stage: Stage, checkpoint: Path | None) -> CheckpointCard | None:
    expected = STAGES[stage].parent
    if expected is None:
        if checkpoint is not None:
            raise UserError(f"stage `{stage}` assembles the model itself and takes no checkpoint")
        return None
    if checkpoint is None:
        raise UserError(f"stage `{stage}` continues from a `{expected}` checkpoint; none was given")
    return read_card(checkpoint, expected=expected)


def attention_of(recipe: Recipe, stage: Stage) -> str:
    """The attention kernel of a stage on this machine.

    Raises:
        UserError: this machine has not the kernel or the precision that the recipe names.
    """
    figures = recipe.stage(stage)
    precision = resolve_precision(figures.precision, allow_fp16=figures.allow_fp16)
    masked = isinstance(figures, DPOStage) and figures.shared_prompt
    return resolve_attention(recipe.model.attention, precision, masked=masked)


def _train(inputs: StageInputs) -> None:
    """The body of a stage, run by every training process; rank 0 writes."""
    from transformers import set_seed

    from siqvl.training.memory.batch_memory import tell_memory
    from siqvl.training.samples.sample_answers import SampleAnswers

    recipe, stage = inputs.recipe, inputs.stage
    set_seed(recipe.seed)
    parent = _check_parent(stage, inputs.checkpoint)
    # `train_stage` has compared the checksums already, once for all processes.
    dataset, manifest = load_prepared(inputs.data, STAGES[stage].rows, verify=False)
    figures = recipe.stage(stage)
    precision = resolve_precision(figures.precision, allow_fp16=figures.allow_fp16)
    set_up(recipe, precision)
    model, processor = _load_model(recipe, inputs.checkpoint, attention_of(recipe, stage))
    counts = freeze(model, figures.trainable)
    if figures.compile:
        compile_layers(model)
    work_dir = _work_dir(inputs, parent, manifest)
    encoded = encoded_rows(recipe, stage, dataset, processor)
    features = tower_features(recipe, stage, encoded, dataset, model, processor)
    trainer = _build_trainer(
        inputs, model, processor, encoded, features, manifest.rows_of_sources, work_dir
    )
    # packing every epoch of a large run takes a while, and only one process reports it
    data_metrics = plan_metrics(trainer.loader.plan) if trainer.is_world_process_zero() else {}
    if inputs.log and data_metrics:
        inputs.log.metrics(data_metrics)
    if trainer.is_world_process_zero():
        shape = BatchShape.largest(trainer.loader.plan, trainer.telemetry.items)
        tell_memory(model, shape, figures, recipe, precision)
    samples = SampleAnswers.of(trainer, recipe, dataset, encoded, processor, precision, inputs.log)
    result = trainer.train(resume_from_checkpoint=trainer.last_state())
    if trainer.mean is not None:
        trainer.mean.to_model()
    if samples is not None:
        samples.take(trainer.state.global_step)
    weights = trainer.whole_weights()

    if trainer.is_world_process_zero():
        write_checkpoint(
            inputs.output,
            trainer.accelerator.unwrap_model(trainer.model),
            processor,
            weights=weights,
            stage=stage,
            parent=parent,
            recipe=recipe,
            data_fingerprint=manifest.fingerprint,
            code_version=code_version(),
            mlflow_run=inputs.log.run_id if inputs.log else None,
            metrics=_metrics(result.metrics, encoded, counts) | data_metrics,
            history=training_history(trainer.state.log_history),
        )
        shutil.rmtree(work_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


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
    from siqvl.model.assemble import load_checkpoint

    spec = recipe.model
    try:
        if checkpoint is not None:
            return load_checkpoint(checkpoint, attn_implementation=attention)
        return _assemble(spec, attention)
    except (ValueError, OSError) as error:  # what transformers raises for a wrong or missing part
        raise UserError(" ".join(str(error).split())) from error


def _assemble(spec: Model, attention: str) -> tuple[SiQVLForConditionalGeneration, SiQVLProcessor]:
    from siqvl.model.assemble import assemble

    return assemble(
        spec.vision,
        spec.language,
        pixel_shuffle_factor=spec.pixel_shuffle_factor,
        max_image_tokens=spec.max_image_tokens,
        init=spec.init,
        random_tower=spec.random_tower,
        attn_implementation=attention,
        system_prompt=spec.system_prompt,
        trust_remote_code=spec.trust_remote_code,
        vision_revision=spec.vision_revision,
        language_revision=spec.language_revision,
    )


def _build_trainer(
    inputs: StageInputs,
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    encoded: EncodedDataset,
    features: TensorStore | None,
    rows_of_sources: list[int],
    work_dir: Path,
) -> SFTTrainer | PreferenceTrainer:
    from siqvl.tracking.callback import MetricLogger
    from siqvl.training.figures.progress import Progress
    from siqvl.training.preference.dpo import dpo_trainer
    from siqvl.training.sft import sft_trainer

    stage = inputs.recipe.stage(inputs.stage)
    common: dict[str, Any] = {
        "stage": stage,
        "recipe": inputs.recipe,
        "rows_of_sources": rows_of_sources,
        "work_dir": work_dir,
        "callbacks": [
            Progress(STAGES[inputs.stage].title),
            *([MetricLogger(inputs.log)] if inputs.log else []),
        ],
        "features": features,
    }
    if isinstance(stage, DPOStage):
        return dpo_trainer(model, processor, encoded, **common)
    return sft_trainer(model, processor, encoded, **common)


def _work_dir(inputs: StageInputs, parent: CheckpointCard | None, manifest: Manifest) -> Path:
    """Where resumable states are kept, named by what they depend on: stale ones are never used."""
    import hashlib

    key = "-".join([inputs.recipe.hash(), parent.hash if parent else "none", manifest.fingerprint])
    name = hashlib.sha256(key.encode()).hexdigest()[:12]
    return inputs.output.with_name(f".{inputs.output.name}.training-{name}")
