"""Put the questions of a source to a checkpoint; give the pairs as checked rows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.data import sources
from siqvl.data.preparation.checks import Checked, check_row
from siqvl.data.schema import Row, RowKind
from siqvl.generation.sampling import sample
from siqvl.preferences.pairing import draw_pairs, judge, pair_row
from siqvl.preferences.statistics import Counts
from siqvl.recipe import Recipe, SampledPairs, Source

if TYPE_CHECKING:
    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor

#: Batches whose questions are held in memory, and sorted by length, together.
BATCHES_AT_ONCE = 16


class Asker:
    """A loaded checkpoint that is asked as `stages.dpo.sampled` says."""

    def __init__(
        self,
        model: SiQVLForConditionalGeneration,
        processor: SiQVLProcessor,
        recipe: Recipe,
        settings: SampledPairs,
    ) -> None:
        self.model, self.processor = model, processor
        self.recipe, self.settings = recipe, settings

    @classmethod
    def load(cls, recipe: Recipe, settings: SampledPairs, checkpoint: Path) -> Asker:
        """Load a checkpoint directory on the fastest device of this machine."""
        from siqvl.device import answering_attention, best_device
        from siqvl.model.assemble import load_checkpoint

        attention = answering_attention(recipe.model.attention)
        model, processor = load_checkpoint(checkpoint, attn_implementation=attention)
        model.to(best_device())  # type: ignore[arg-type]  # transformers wraps `to` untyped
        model.eval()
        return cls(model, processor, recipe, settings)

    def rows(self, source: Source, counts: Counts, *, title: str) -> Iterator[Checked]:
        """Pairs about the questions of a source, one after the other, as preparation checks them.

        A question that is bad comes as the refused row that it is, one that gives no pair as a row
        that is left out.

        Args:
            counts: added to as questions are asked.
            title: of the progress bar.
        """
        from tqdm import tqdm

        seed, data = self.recipe.seed, self.recipe.data
        settings = self.settings
        together = max(1, settings.batch_size // settings.samples) * BATCHES_AT_ONCE
        raw = sources.rows(source, RowKind.EVALUATION, seed)
        total = sources.size(source, RowKind.EVALUATION, seed)
        with tqdm(total=total, desc=title, unit="question") as bar:
            while rows := list(islice(raw, together)):
                checked = [check_row(row, RowKind.EVALUATION, data) for row in rows]
                good = [one.row for one in checked if one.row is not None]
                bar.update(len(checked) - len(good))
                completions = sample(
                    self.model,
                    self.processor,
                    [{**row, "images": _decoded(row)} for row in good],
                    settings,
                    seed=seed,
                    progress=bar.update,
                )
                written = iter(completions)
                for one in checked:
                    if one.row is None:
                        yield one
                        continue
                    judged = judge(next(written), one.row, settings)
                    pairs = draw_pairs(judged, one.id, most=settings.max_pairs, seed=seed)
                    if why := counts.add(judged, len(pairs)):
                        yield Checked(id=one.id, source=one.source, left_out=why)
                    for number, pair in enumerate(pairs):
                        row = pair_row(one.row, number, pair, settings)
                        yield check_row(row, RowKind.PREFERENCE, data)


def _decoded(row: Row) -> list[object]:
    from PIL import Image

    return [Image.open(io.BytesIO(image["bytes"])) for image in row["images"]]
