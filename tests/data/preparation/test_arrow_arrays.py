"""Arrow arrays built here are what pyarrow makes of the same values."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siqvl.data.preparation.arrow_arrays import arrow_array, arrow_batch
from siqvl.data.preparation.pieces import piece_schema
from siqvl.data.schema import RowKind

TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = {
    pa.string(): TEXT,
    pa.binary(): st.none() | st.binary(max_size=5),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.list_(pa.string()): st.none() | st.lists(TEXT, max_size=3),
    pa.list_(pa.struct({"role": pa.string(), "content": pa.binary()})): st.none()
    | st.lists(
        st.none() | st.fixed_dictionaries({"role": TEXT, "content": st.none() | st.binary()}),
        max_size=3,
    ),
    pa.list_(pa.list_(pa.int32())): st.lists(st.none() | st.lists(st.integers(0, 9), max_size=3)),
}


@pytest.mark.parametrize("kind", VALUES, ids=str)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_they_are_what_pyarrow_makes(kind: pa.DataType, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES[kind], max_size=20))
    made = arrow_array(values, kind)
    made.validate(full=True)
    assert made.equals(pa.array(values, kind))


@pytest.mark.parametrize("kind", RowKind)
def test_a_batch_may_lack_columns_and_rows(kind: RowKind) -> None:
    schema = piece_schema(kind)
    for rows in ([], [{}], [{"id": "a", "images": [0, 1]}, {"checked": "{}"}]):
        made = arrow_batch(rows, schema)
        made.validate(full=True)
        assert made.equals(pa.RecordBatch.from_pylist(rows, schema))


def test_a_process_that_checks_rows_imports_neither_pandas_nor_datasets(tmp_path: Path) -> None:
    """They take it two seconds."""
    program = """
import sys
from pathlib import Path
from siqvl.data.preparation.workers import Checker
from siqvl.recipe import DataPrep, Source
source = Source(kind="shapes", max_samples=3)
checker = Checker(Path(), [source], "sft", 0, DataPrep())
assert checker.piece(0, 0, 3).file
print(sorted({"pandas", "datasets"} & set(sys.modules)))
"""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
