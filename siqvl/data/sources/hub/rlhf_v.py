"""RLHF-V (Yu et al. 2023, arXiv:2312.00849): answers corrected by people, for preference training.

`path` is the hub id (openbmb/RLHF-V-Dataset) or its parquet file. Columns, from its card: `image`,
`text` (an object, or its JSON: `question`, `chosen`, `rejected`), `ds_name`, `origin_dataset`,
`origin_split`, `idx`, `image_path`.
"""

from __future__ import annotations

from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.formats.table_file import parsed
from siqvl.data.sources.hub.rlaif_v import ranked_row
from siqvl.data.sources.reading.published import Published, TableAdapter


class RLHFV(TableAdapter):
    """Adapter `rlhf_v`."""

    name = "rlhf_v"
    kinds = frozenset({RowKind.PREFERENCE})
    needs = ("image", "text")

    def row(self, kind: RowKind, one: Published) -> Row:
        pair = parsed(one["text"])
        # what is no object leaves its texts empty, and so is quarantined
        return ranked_row(one, pair if isinstance(pair, dict) else {})
