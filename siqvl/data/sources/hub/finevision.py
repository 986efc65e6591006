"""FineVision (Wiedmann et al. 2025, arXiv:2510.17269): 24 M rows in 185 subsets.

`path` is the hub id (HuggingFaceM4/FineVision), or a folder with a sub-folder of parquet files per
subset. Columns, as `load_dataset` lists them: `images` (several, or none in text-only rows),
`texts` (turns of `user` and `assistant`), `source`, and for each of four ratings
`<rating>_ratings`, one a turn, and `<rating>_min`, the lowest of these.
"""

from __future__ import annotations

from typing import Any

from siqvl.data.schema import Row, RowKind, left_out_row, sft_row
from siqvl.data.sources.reading.conversations import messages_of, split_turns
from siqvl.data.sources.reading.published import Published, TableAdapter

RATINGS = ("relevance", "formatting", "visual_dependency", "image_correspondence")


class FineVision(TableAdapter):
    """Adapter `finevision`."""

    name = "finevision"
    kinds = frozenset({RowKind.SFT})
    needs = ("images", "texts")

    def row(self, kind: RowKind, one: Published) -> Row:
        """Turns below a minimum of `min_ratings` are dropped; earlier turns go into the prompt."""
        turns = one["texts"] if isinstance(one["texts"], list | tuple) else []
        good = [index for index in range(len(turns)) if not _below(one, index, len(turns))]
        if turns and not good:
            return left_out_row(one.id(), "rated below min_ratings", source=one.source)
        kept = [turns[index] for index in good]
        prompt, completion = split_turns(kept if turns else one["texts"], "texts")
        ratings = {
            f"{name}_ratings": [rated[index] for index in good]
            for name in RATINGS
            if (rated := _of_turns(one, name, len(turns)))
        }
        return sft_row(
            one.id(),
            one.pictures("images"),
            messages_of(prompt),
            messages_of(completion),
            source=one.source,
            published_source=one["source"],
            turns_left_out=len(turns) - len(good),
            **ratings,
            **{f"{name}_min": one[f"{name}_min"] for name in RATINGS},
        )


def _below(one: Published, turn: int, turns: int) -> bool:
    """Whether a turn is rated below a minimum.

    Where there is no rating for every turn, the row's lowest stands for all of them. What is not
    rated (null, or no number from 1 to 5) has nothing against it and stays, as in nanoVLM.
    """
    for name in RATINGS:
        minimum = getattr(one.origin.min_ratings, name)
        if minimum is None:
            continue
        rated = _of_turns(one, name, turns)
        rating = rated[turn] if rated else one[f"{name}_min"]
        if isinstance(rating, int | float) and 1 <= rating < minimum:
            return True
    return False


def _of_turns(one: Published, name: str, turns: int) -> list[Any] | None:
    """The ratings of all turns; None where they are absent or of another number."""
    rated = one[f"{name}_ratings"]
    return list(rated) if isinstance(rated, list | tuple) and len(rated) == turns else None
