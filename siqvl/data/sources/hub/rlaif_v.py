"""RLAIF-V (Yu et al. 2024, arXiv:2405.17220): answers of models ranked by models.

`path` is the hub id (openbmb/RLAIF-V-Dataset) or its parquet files. Columns, from its card:
`image`, `question`, `chosen`, `rejected`, `ds_name`, `origin_dataset`, `origin_split`, `idx`,
`image_path`.
"""

from __future__ import annotations

from typing import Any

from siqvl.data.schema import Row, RowKind, preference_row
from siqvl.data.sources.reading.conversations import clean
from siqvl.data.sources.reading.published import Published, TableAdapter


class RLAIFV(TableAdapter):
    """Adapter `rlaif_v`."""

    name = "rlaif_v"
    kinds = frozenset({RowKind.PREFERENCE})
    needs = ("image", "question", "chosen", "rejected")

    def row(self, kind: RowKind, one: Published) -> Row:
        return ranked_row(one, one.record)


def ranked_row(one: Published, texts: dict[str, Any]) -> Row:
    """Returns the pair of a row whose `question`, `chosen` and `rejected` are in `texts`."""
    return preference_row(
        one.id(),
        [one.picture()],
        clean(texts.get("question")),
        clean(texts.get("chosen")),
        clean(texts.get("rejected")),
        source=one.source,
        idx=one["idx"],
        origin=one["origin_dataset"],
    )
