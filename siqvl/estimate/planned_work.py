"""The steps, rows and tokens of a stage: of prepared rows exactly, or what a recipe bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siqvl.errors import UserError
from siqvl.estimate.results import Amount, Sure
from siqvl.recipe import DPOStage, Recipe, SFTStage, Stage

if TYPE_CHECKING:
    from siqvl.model.configuration import SiQVLConfig
    from siqvl.training.figures.work import Work
    from siqvl.training.memory.batch_shape import BatchShape

#: Optimizer steps whose batches are looked at for the largest.
LOOKED_AT = 200
#: Tokens of a picture beside those of its features: `<|vision_start|>` and `<|vision_end|>`.
AROUND = 2


@dataclass(frozen=True)
class PlannedWork:
    """What a stage trains on.

    Attributes:
        sure: of `work` and `shapes`.
        steps: of the optimizer.
        rows: of an epoch.
        pictures: distinct ones, that are cached.
        work: of the whole run; None: nothing bounds it.
        shapes: batches of which one takes most memory.
        reference: a batch of the reference's pass; None: there is none.
        rows_bytes: of prepared rows.
        note: what was assumed.
    """

    sure: Sure
    steps: Amount
    rows: Amount
    pictures: Amount
    work: Work[int] | None
    shapes: list[BatchShape]
    reference: BatchShape | None
    rows_bytes: Amount
    note: str = ""


def planned_work(
    recipe: Recipe, stage: Stage, config: SiQVLConfig, data: Path | None
) -> PlannedWork:
    """The work of a stage.

    Args:
        data: prepared rows, of this stage or in a folder of its name.

    Raises:
        UserError: `data` has no rows of this stage.
    """
    if data is not None:
        return _of_rows(recipe, stage, config, data)
    return _of_recipe(recipe, recipe.stage(stage), config)


def _world(recipe: Recipe) -> int:
    spread = recipe.distributed
    return spread.processes * spread.nodes if spread.enabled else 1


def _of_recipe(recipe: Recipe, stage: SFTStage, config: SiQVLConfig) -> PlannedWork:
    """Bounds: every sequence is as long as it may be."""
    from siqvl.training.figures.work import Work
    from siqvl.training.memory.batch_shape import BatchShape

    pairs = isinstance(stage, DPOStage)
    sides = 2 if pairs else 1
    packed = stage.batching == "packed"
    width = (stage.pack_length if packed else None) or stage.max_length * sides
    picture = config.tokens_per_image + AROUND
    if packed:
        images = stage.pack_images or max(1, width // picture)
    else:
        images = min(stage.max_images or 1, max(1, stage.max_length // picture))
    per_step = stage.batch_size * stage.accumulation * _world(recipe)
    rows = _rows_at_most(stage)
    steps, sequences = _steps_at_most(stage, rows, per_step, packed, width)
    # most pictures, or most answer tokens: no sequence has both
    sides_apart = 2 if pairs and not getattr(stage, "shared_prompt", False) else 1
    shapes = [
        BatchShape(
            stage.batch_size,
            width,
            count * stage.batch_size,
            max(1, width - count * config.tokens_per_image) * stage.batch_size,
            sides_apart,
        )
        for count in sorted({images, 1})
    ]
    work = None
    if sequences is not None:
        each = stage.max_length
        work = Work(
            tokens=sequences * width,
            pairs=sequences * (width // each or 1) * each * (each + 1) // 2,
            images=sequences * images,
            learned=sequences * max(1, width - config.tokens_per_image),
        )
    note = "every sequence as long as it may be"
    if not packed and stage.max_images is None:
        note += ", and one picture a row"
    return PlannedWork(
        sure="at most",
        steps=steps,
        rows=Amount(value=rows, sure="at most") if rows else Amount(),
        pictures=Amount(value=rows * (stage.max_images or 1), sure="at most") if rows else Amount(),
        work=work,
        shapes=shapes,
        reference=_reference_shape(stage, shapes[0]),
        rows_bytes=Amount(),
        note=note,
    )


def _reference_shape(stage: SFTStage, shape: BatchShape) -> BatchShape | None:
    if not isinstance(stage, DPOStage) or not stage.compares:
        return None
    pairs = stage.reference_batch_size
    return shape.of_rows(pairs if shape.sides == 1 else max(pairs // 2, 1))


def _rows_at_most(stage: SFTStage) -> int | None:
    """Rows of an epoch; None where a source does not say how many it takes."""
    sources = [*stage.sources]
    total = 0.0
    for source in sources:
        if source.max_samples is None:
            return None
        total += source.max_samples * source.weight
    sampled = stage.sampled if isinstance(stage, DPOStage) else None
    if sampled is not None:
        if sampled.source.max_samples is None:
            return None
        total += sampled.source.max_samples * sampled.max_pairs * sampled.weight
    return math.ceil(total)


def _steps_at_most(
    stage: SFTStage, rows: int | None, per_step: int, packed: bool, width: int
) -> tuple[Amount, int | None]:
    """Optimizer steps, and sequences in all of them."""
    if stage.max_steps is not None:
        return Amount(value=stage.max_steps, sure="known"), stage.max_steps * per_step
    if rows is None:
        return Amount(), None
    # packs of rows as long as they may be hold so many
    in_pack = max(1, width // stage.max_length) if packed else 1
    steps = max(1, math.ceil((stage.epochs or 0) * rows / in_pack / per_step))
    return Amount(value=steps, sure="at most"), steps * per_step


def _of_rows(recipe: Recipe, stage: Stage, config: SiQVLConfig, data: Path) -> PlannedWork:
    """By the plan that training makes of the rows."""
    from siqvl.data.batching import BatchPlan
    from siqvl.data.mixture import Mixture
    from siqvl.data.shards import load_prepared
    from siqvl.look.recipe_processor import local_processor
    from siqvl.stages import STAGES
    from siqvl.training.figures.work import ItemWork
    from siqvl.training.memory.batch_shape import BatchShape
    from siqvl.training.prepared_sources import sources_of
    from siqvl.training.rows import encoded_rows

    figures = recipe.stage(stage)
    dataset, manifest = load_prepared(data, STAGES[stage].rows, verify=False)
    sources = sources_of(figures, manifest)
    processor, lacking = local_processor(recipe)
    if processor is None:
        raise UserError(f"the lengths of the rows in {data} are not known: {lacking}")
    rows: Any = encoded_rows(recipe, stage, dataset, processor)
    masked = config.text_config._attn_implementation in ("sdpa", "eager")
    shared = isinstance(figures, DPOStage) and figures.shared_prompt and masked
    alone = isinstance(figures, DPOStage) and not figures.compares
    if isinstance(figures, DPOStage):
        rows = rows.as_pairs(shared_prompt=shared)
        length = figures.pack_length or 2 * figures.max_length
        figures = figures.model_copy(update={"pack_length": length})
    mixture = Mixture.of(
        rows, sources, manifest.rows_of_sources, temperature=figures.temperature, seed=recipe.seed
    )
    plan = BatchPlan.of(figures, rows, mixture, world=_world(recipe))
    items = ItemWork(rows, shared_prompt=shared, chosen_alone=alone)
    sides = 2 if isinstance(figures, DPOStage) and not shared and not alone else 1
    shapes = BatchShape.extremes(plan, items, LOOKED_AT, sides=sides)
    parts = [items.total(part) for part in plan.items()]
    known: Sure = "known"
    return PlannedWork(
        sure=known,
        steps=Amount(value=plan.steps, sure=known),
        rows=Amount(value=sum(mixture.rows_per_epoch), sure=known),
        pictures=Amount(value=manifest.distinct_images, sure=known),
        work=sum(parts[1:], parts[0]),
        shapes=shapes,
        reference=_largest_pairs(figures, items, rows, shared, sides),
        rows_bytes=Amount(
            value=sum(one.bytes for one in manifest.shards) + manifest.pictures.bytes, sure=known
        ),
    )


def _largest_pairs(
    stage: SFTStage, items: Any, rows: Any, shared: bool, sides: int
) -> BatchShape | None:
    """The first batch of the reference's pass, which begins with the longest pairs."""
    import numpy as np

    from siqvl.training.memory.batch_shape import BatchShape

    if not isinstance(stage, DPOStage) or not stage.compares:
        return None
    pairs = stage.reference_batch_size if shared else max(stage.reference_batch_size // 2, 1)
    first = np.argsort(-np.asarray(rows.lengths), kind="stable")[:pairs]
    each = items.of(first)
    return BatchShape(
        len(first), int(each.tokens.max()), int(each.images.sum()), int(each.learned.sum()), sides
    )
