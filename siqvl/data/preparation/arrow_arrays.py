"""Arrow arrays of Python values, without pandas.

The first value that pyarrow converts itself makes it import pandas: half a second in each process
that checks rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa


def arrow_batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """`pa.RecordBatch.from_pylist`; what a row does not have is null.

    Raises:
        OverflowError: a column holds 2 GiB or more.
    """
    columns = [arrow_array([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def arrow_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """`pa.array` of texts, bytes and integers of 32 bits, and of lists and objects of these.

    Integers are all there; anything else may be None.

    Raises:
        OverflowError: they take 2 GiB or more.
    """
    there = [value is not None for value in values]
    mask = None if all(there) else pa.py_buffer(np.packbits(there, bitorder="little"))
    if pa.types.is_int32(kind):
        buffers, children = [mask, pa.py_buffer(np.array(values, np.int32))], []
    elif pa.types.is_struct(kind):
        columns = [
            [None if value is None else value[field.name] for value in values] for field in kind
        ]
        buffers, children = [mask], [*map(arrow_array, columns, (field.type for field in kind))]
    elif pa.types.is_list(kind):
        inner = [one for value in values for one in value or ()]
        children = [arrow_array(inner, kind.value_type)]
        buffers = [mask, _offsets(len(value or ()) for value in values)]
    else:
        parts = [value.encode() if isinstance(value, str) else value or b"" for value in values]
        children = []
        buffers = [mask, _offsets(map(len, parts)), pa.py_buffer(b"".join(parts))]
    return pa.Array.from_buffers(kind, len(values), buffers, children=children)


def _offsets(lengths: Iterable[int]) -> pa.Buffer:
    return pa.py_buffer(np.array([0, *accumulate(lengths)], np.int32))
