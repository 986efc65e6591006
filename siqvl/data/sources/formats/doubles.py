"""Numbers of single precision as they were written.

A single 0.1 is 0.10000000149011612 as a double, which is what Python's numbers are, and nobody
wrote. As pandas and numpy print it, it is 0.1.
"""

from __future__ import annotations

from typing import TypeVar

import pyarrow as pa

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


def with_doubles(rows: Rows) -> Rows:
    """The same rows with doubles in place of singles, of equal decimal digits.

    Singles in lists and objects are among them; those in lists of a fixed size, which are vectors,
    are not.
    """
    types = [_with(field.type, pa.float64()) for field in rows.schema]
    if types == rows.schema.types:
        return rows
    columns = [
        column if column.type == kind else column.cast(_with(column.type, pa.string())).cast(kind)
        for column, kind in zip(rows.columns, types, strict=True)
    ]
    return type(rows).from_arrays(columns, names=rows.schema.names)


def _with(kind: pa.DataType, wanted: pa.DataType) -> pa.DataType:
    """A type with another one in place of each single in it."""
    if pa.types.is_float32(kind):
        return wanted
    if pa.types.is_list(kind):
        return pa.list_(_field(kind.value_field, wanted))
    if pa.types.is_large_list(kind):
        return pa.large_list(_field(kind.value_field, wanted))
    if pa.types.is_struct(kind):
        return pa.struct([_field(field, wanted) for field in kind])
    return kind


def _field(field: pa.Field, wanted: pa.DataType) -> pa.Field:
    return field.with_type(_with(field.type, wanted))
