"""A recipe -> what it takes: memory, disk, operations and hours of each stage."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siqvl.errors import UserError
from siqvl.estimate.device_room import Room, attention_there, room_for
from siqvl.estimate.disk import Weights, disk_figures
from siqvl.estimate.knobs import turns
from siqvl.estimate.operations import MFU_SOURCE, PACKED, UNPACKED, hours, stage_operations
from siqvl.estimate.part_configs import model_config
from siqvl.estimate.planned_work import PlannedWork, planned_work
from siqvl.estimate.results import (
    Amount,
    Estimate,
    EvaluationFigures,
    MemoryFigures,
    StageFigures,
)
from siqvl.recipe import PIPELINE, Recipe, SFTStage, Stage

if TYPE_CHECKING:
    from siqvl.model.configuration import SiQVLConfig
    from siqvl.recipe import Part
    from siqvl.training.memory.batch_shape import BatchShape
    from siqvl.training.memory.step_memory import Processes, StepMemory

FLOAT32 = 4
NO_REWARDS = "stage rlvr is not estimated: TRL's trainer holds its memory"
#: Keys of a stage that memory depends on.
DECIDING = {
    *("trainable", "adapter", "batching", "batch_size", "accumulation", "ema", "head_chunk"),
    *("gradient_checkpointing", "cached_features", "loss", "shared_prompt"),
}


def estimate_recipe(
    recipe: Recipe,
    *,
    gpu: str | None = None,
    mfu: float | None = None,
    data: Path | None = None,
    stages: list[Stage] | None = None,
) -> Estimate:
    """What a recipe takes.

    Args:
        gpu: a name of `siqvl.estimate.gpus`; None: this machine.
        mfu: share of the GPU's peak; None: a published one.
        data: folder of prepared rows, one folder a stage; None: bounds of the recipe's figures.
        stages: None: all.

    Raises:
        UserError: the model's parts or the GPU are not known, or `data` has other rows.
    """
    from siqvl.training.memory.step_memory import parameter_counts

    room = room_for(recipe, gpu)
    with _quiet():
        config, origins = model_config(recipe, attention_there(recipe))
        counts = parameter_counts(config)
        one = _Estimator(recipe, config, counts, room, mfu, data)
        chosen = stages or PIPELINE
        if Stage.RLVR in chosen:
            raise UserError(NO_REWARDS)
        figures = [one.stage(stage) for stage in chosen]
        if recipe.stages.rlvr is not None:
            one.notes.append(NO_REWARDS)
    peak = room.peak_flops(recipe, room.precision(recipe.stage(Stage.VQA_SFT)))
    return Estimate(
        recipe=recipe.name,
        model=origins,
        parameters=counts,
        device=room.name,
        capacity=room.capacity,
        processes=one.processes.count,
        peak_flops=peak,
        mfu=mfu if mfu is not None else PACKED,
        mfu_source="--mfu" if mfu is not None else f"{PACKED}, unpacked {UNPACKED}: {MFU_SOURCE}",
        stages=figures,
        evaluation=_evaluation(recipe),
        disk=int(sum(_disk_total(each) for each in figures)),
        registry=int(sum(each.disk.checkpoint.value or 0 for each in figures)),
        notes=one.notes,
    )


class _Estimator:
    """What all stages of a recipe share."""

    def __init__(
        self,
        recipe: Recipe,
        config: SiQVLConfig,
        counts: dict[Part, int],
        room: Room,
        mfu: float | None,
        data: Path | None,
    ) -> None:
        from siqvl.training.memory.step_memory import Processes

        self.recipe, self.config, self.counts = recipe, config, counts
        self.room, self.mfu, self.data = room, mfu, data
        self.notes: list[str] = []
        self._known: dict[tuple[object, ...], StepMemory] = {}
        spread = recipe.distributed
        count = spread.processes * spread.nodes if spread.enabled else 1
        sharded = spread.enabled and spread.strategy == "fsdp"
        self.processes: Processes = Processes(count, sharded, room.on_gpu)

    def stage(self, stage: Stage) -> StageFigures:
        """All figures of a stage."""
        figures = self.recipe.stage(stage)
        work = planned_work(self.recipe, stage, self.config, self._rows_of(stage))
        if work.note:
            self._note(f"without prepared rows: {work.note}")
        precision = self._precision(stage, figures)
        step = self._step(figures, work, precision, self.processes)
        memory = self._memory(figures, precision, step, self.processes, pairs=work.reference)
        usable = self.room.usable
        fits = None if usable is None else memory.total <= usable
        turned = []
        if fits is False and usable is not None:
            turned = turns(
                figures,
                usable,
                partial(self._turned, figures, replace(work, shapes=[step.shape]), precision),
                first=stage is Stage.PROJECTOR_ALIGNMENT,
                sharded=self.processes.sharded,
            )
        learning = (
            step.gradients // FLOAT32 * (self.processes.count if self.processes.sharded else 1)
        )
        vision = self.config.vision_config
        weights = Weights(sum(self.counts.values()), learning)
        return StageFigures(
            stage=stage,
            learns=_learns(figures),
            precision=precision,
            memory=memory,
            memory_sure=work.sure,
            fits=fits,
            turns=turned,
            disk=disk_figures(
                figures,
                work,
                weights,
                picture_numbers=self.config.patch_grid**2 * vision.hidden_size,
                sharded=self.processes.sharded,
            ),
            steps=work.steps,
            rows_per_step=figures.batch_size * figures.accumulation * self.processes.count,
            rows=work.rows,
            **self._amounts(figures, work, precision, learning),
        )

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _rows_of(self, stage: Stage) -> Path | None:
        if self.data is None:
            return None
        inside = self.data / stage.value
        if inside.is_dir():
            return inside
        if (self.data / "manifest.json").is_file():
            return self.data
        self._note(f"{self.data} has no rows of {stage.value}: bounds of the recipe stand for them")
        return None

    def _precision(self, stage: Stage, figures: SFTStage) -> str:
        precision = self.room.precision(figures)
        if precision == "bf16" and self.room.bf16 is False and self.room.on_gpu:
            self._note(
                f"{self.room.name} has no bfloat16: set stages.{stage.value}.precision=fp32, which "
                "needs more memory than is told here"
            )
        return precision

    def _step(
        self, figures: SFTStage, work: PlannedWork, precision: Any, processes: Processes
    ) -> StepMemory:
        from siqvl.training.memory.step_memory import step_memory

        deciding = figures.model_dump_json(include=DECIDING & set(type(figures).model_fields))
        key = (deciding, *work.shapes, precision, processes)
        if key not in self._known:  # stages that follow one another are often alike
            self._known[key] = step_memory(self.config, figures, work.shapes, precision, processes)
        return self._known[key]

    def _memory(
        self,
        figures: SFTStage,
        precision: Any,
        step: StepMemory,
        processes: Processes,
        *,
        pairs: BatchShape | None,
    ) -> MemoryFigures:
        from siqvl.training.memory.step_memory import pass_memory

        beside = pass_memory(
            self.config,
            figures,
            precision,
            features_batch=self.recipe.features_batch_size,
            pairs=pairs,
            on_gpu=self.room.on_gpu,
        )
        # whole on each device, FSDP or not: nothing is shared out yet
        share = processes.count if processes.sharded else 1
        weights = sum(step.weights.values()) * share
        passes = {name: weights + size for name, size in beside.items()}
        return MemoryFigures(
            weights=step.weights,
            gradients=step.gradients,
            optimizer=step.optimizer,
            ema=step.ema,
            buckets=step.buckets,
            gathered=step.gathered,
            batch=step.batch,
            logits=step.logits,
            step=step.total,
            passes=passes,
            total=max(step.total, *passes.values(), 0),
            rows=step.shape.rows,
            width=step.shape.width,
            images=step.shape.images,
            learned=step.shape.learned,
        )

    def _turned(
        self,
        figures: SFTStage,
        work: PlannedWork,
        precision: Any,
        changes: dict[str, Any],
        processes: int | None,
    ) -> int:
        """Memory with other keys, or as many processes of FSDP; of the step and the passes."""
        from siqvl.training.memory.step_memory import Processes

        turned = figures.model_copy(update=changes)
        rows = turned.batch_size
        shapes = [one.of_rows(rows) for one in work.shapes]
        used = self.processes if processes is None else Processes(processes, True, True)
        changed = replace(work, shapes=shapes)
        step = self._step(turned, changed, precision, used)
        return self._memory(turned, precision, step, used, pairs=work.reference).total

    def _amounts(
        self, figures: SFTStage, work: PlannedWork, precision: str, learning: int
    ) -> dict[str, Amount]:
        names = ("tokens", "images", "operations", "repeated", "once", "hours")
        if work.work is None:
            return {name: Amount() for name in names}
        adapters = 0
        if figures.adapter is not None:
            adapters = learning - sum(self.counts[part] for part in figures.in_full)
        trained = (work.steps.value or 0) * figures.batch_size * figures.accumulation
        trained *= self.processes.count
        per_epoch = work.rows.value or trained or 1
        found = stage_operations(
            self.config,
            figures,
            work.work,
            adapters=adapters,
            pictures=work.pictures.value,
            epochs=trained / per_epoch,
        )
        values: dict[str, float | None] = {
            "tokens": work.work.tokens,
            "images": work.work.images,
            "operations": found.needed,
            "repeated": found.repeated,
            "once": found.once,
            "hours": None,
        }
        peak = self.room.peak_flops(self.recipe, precision)
        if peak is not None:
            usual = PACKED if figures.batching == "packed" else UNPACKED
            mfu = self.mfu if self.mfu is not None else usual
            values["hours"] = hours(found, peak, mfu, self.processes.count)
        return {
            name: Amount(value=value, sure=work.sure) if value is not None else Amount()
            for name, value in values.items()
        }


def _learns(figures: SFTStage) -> list[str]:
    names = [str(part) for part in figures.in_full]
    if figures.adapter is not None:
        kind = "" if figures.adapter.quantize == "none" else f", {figures.adapter.quantize}"
        names.append(f"adapters of rank {figures.adapter.rank}{kind}")
    return names


def _disk_total(stage: StageFigures) -> float:
    disk = stage.disk
    parts = (disk.rows, disk.features, disk.states, disk.checkpoint)
    return sum(one.value or 0 for one in parts) + (disk.checkpoint.value or 0)


def _evaluation(recipe: Recipe) -> EvaluationFigures:
    """Questions times the ways and the stages in which they are put; controls count as stages."""
    answers = tokens = 0
    controls = {
        Stage.PROJECTOR_ALIGNMENT: recipe.evaluation.random_tower,
        Stage.DPO: recipe.evaluation.likelihood_control,
    }
    for benchmark in recipe.evaluation.benchmarks:
        questions = benchmark.source.max_samples
        if questions is None:
            return EvaluationFigures(answers=Amount(), tokens=Amount())
        asked = sum(1 + controls.get(stage, False) for stage in benchmark.stages)
        put = questions * asked * (1 + len(benchmark.blind))
        answers += put
        tokens += put * benchmark.max_new_tokens if benchmark.method == "generation" else 0
    return EvaluationFigures(
        answers=Amount(value=answers, sure="at most"), tokens=Amount(value=tokens, sure="at most")
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Published configs say things that transformers warns of, and that do not matter here."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
