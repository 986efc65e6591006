"""RLHF-V (Yu et al. 2023, arXiv:2312.00849): answers corrected by people, for preference training.

`path` is the hub id (openbmb/RLHF-V-Dataset) or its parquet file. Columns, from its card: `image`,
`text` (an object, or its JSON: `question`, `chosen`, `rejected`), `ds_name`, `origin_dataset`,
`origin_split`, `idx`, `image_path`.
"""

from __future__ import annotations

import json
from typing import Any

from siqvl.data.schema import Row, RowKind, preference_row
from siqvl.data.sources.reading.conversations import clean
from siqvl.data.sources.reading.published import Published, TableAdapter


class RLHFV(TableAdapter):
    """Adapter `rlhf_v`."""

    name = "rlhf_v"
    kinds = frozenset({RowKind.PREFERENCE})
    needs = ("image", "text")

    def row(self, kind: RowKind, one: Published) -> Row:
        pair = _object(one["text"])
        return preference_row(
            one.id(),
            [one.picture()],
            clean(pair.get("question")),
            clean(pair.get("chosen")),
            clean(pair.get("rejected")),
            source=one.source,
            idx=one["idx"],
            origin=one["origin_dataset"],
        )


def _object(text: Any) -> dict[str, Any]:
    """The pair; empty, and so quarantined, when it cannot be read."""
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}
