"""FineVision (huggingface.co/datasets/HuggingFaceM4/FineVision): 24 M rows in 185 subsets.

`path` is the hub id, or a folder with a sub-folder of parquet files per subset. Columns: `images`,
`texts` (turns of user and assistant), `source`, and ratings, which are kept in `meta`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siqvl.data.schema import Row, RowKind, sft_row
from siqvl.data.sources.base import label
from siqvl.data.sources.conversations import split_turns
from siqvl.data.sources.tabular import (
    check_table,
    columns,
    image_value,
    interleaved,
    is_local,
    records,
    subsets_of,
)
from siqvl.errors import UserError
from siqvl.recipe import Source

RATINGS = ("_ratings", "_min")


class FineVision:
    """Adapter `finevision`."""

    kinds = frozenset({RowKind.SFT})

    def check(self, source: Source, kind: RowKind) -> None:
        check_table(source)
        if is_local(source):
            found = columns(source)
            for column in ("images", "texts"):
                if column not in found:
                    raise UserError(
                        f"{label(source)}: {source.path} has no column `{column}`; "
                        f"it has {', '.join(found) or 'no rows'}"
                    )

    def rows(self, source: Source, kind: RowKind, seed: int) -> Iterator[Row]:
        """Subsets take turns, so that the first rows are of all of them."""
        return interleaved([_subset(source, subset) for subset in subsets_of(source)])


def _subset(source: Source, subset: str | None) -> Iterator[Row]:
    for index, (record, folder) in enumerate(records(source, subset)):
        yield finevision_row(record, f"finevision/{subset or 'all'}/{index:07d}", subset, folder)


def finevision_row(
    record: dict[str, Any], row_id: str, subset: str | None, folder: Path | None
) -> Row:
    """One published row; earlier turns go into the prompt."""
    prompt, completion = split_turns(record["texts"])
    images = [image_value(image, folder) for image in record["images"] or []]
    ratings = {name: value for name, value in record.items() if name.endswith(RATINGS)}
    return sft_row(
        row_id,
        images,
        prompt,
        completion,
        source=f"finevision/{subset}" if subset else "finevision",
        published_source=record.get("source"),
        **ratings,
    )
