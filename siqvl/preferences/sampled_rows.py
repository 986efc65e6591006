"""Pairs about the questions of a source, from completions that a checkpoint writes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice

from PIL import Image
from tqdm import tqdm

from siqvl.data import sources
from siqvl.data.preparation.checks import Checked, check_row
from siqvl.data.schema import Row, RowKind
from siqvl.generation.sampling import sample
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.preferences.pairing import draw_pairs, judge, pair_row
from siqvl.preferences.statistics import Counts
from siqvl.recipe import Recipe, SampledPairs, Source

#: Batches whose questions are held in memory, and sorted by length, together.
BATCHES_AT_ONCE = 16


def sampled_rows(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    recipe: Recipe,
    settings: SampledPairs,
    source: Source,
    counts: Counts,
    *,
    title: str,
) -> Iterator[Checked]:
    """Asks every question of a source, and gives the pairs as preparation checks them.

    A question that is bad comes as the refused row that it is, one that gives no pair as a row
    that is left out.

    Args:
        settings: `stages.dpo.sampled` of the recipe.
        counts: added to as questions are asked.
        title: of the progress bar.
    """
    seed, data = recipe.seed, recipe.data
    together = max(1, settings.batch_size // settings.samples) * BATCHES_AT_ONCE
    raw = sources.rows(source, RowKind.EVALUATION, seed)
    total = sources.size(source, RowKind.EVALUATION, seed)
    with tqdm(total=total, desc=title, unit="question") as bar:
        while rows := list(islice(raw, together)):
            checked = [check_row(row, RowKind.EVALUATION, data) for row in rows]
            good = [
                {**one.row, "images": _decoded(one.row)} for one in checked if one.row is not None
            ]
            bar.update(len(checked) - len(good))
            sampled = sample(model, processor, good, settings, seed=seed, progress=bar.update)
            completions = iter(sampled)
            for one in checked:
                if one.row is None:
                    yield one
                    continue
                judged = judge(next(completions), one.row, settings)
                pairs = draw_pairs(judged, one.id, most=settings.max_pairs, seed=seed)
                if why := counts.add(judged, len(pairs)):
                    yield Checked(id=one.id, source=one.source, left_out=why)
                for number, pair in enumerate(pairs):
                    row = pair_row(one.row, number, pair, settings)
                    yield check_row(row, RowKind.PREFERENCE, data)


def _decoded(row: Row) -> list[Image.Image]:
    return [Image.open(io.BytesIO(image["bytes"])) for image in row["images"]]
