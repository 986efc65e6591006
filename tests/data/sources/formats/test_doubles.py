"""Numbers of single precision are read as numpy prints them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siqvl.data.schema import RowKind
from siqvl.data.sources.formats.doubles import with_doubles
from siqvl.recipe import Source
from tests.data.sources.published_files import read, texts

VALUES = [0.1, 3.14, 1e-7, 12345.678, 0.30000001, 100.0]


@pytest.mark.parametrize("rows", [pa.RecordBatch, pa.Table])
def test_every_single_is_the_double_of_its_digits(rows: type) -> None:
    values = np.random.default_rng(0).normal(size=2_000).astype(np.float32) * 10.0
    found = with_doubles(rows.from_pydict({"a": pa.array(values, pa.float32())}))
    assert found["a"].to_pylist() == [float(str(value)) for value in values]


def test_lists_and_objects_and_nothing_else() -> None:
    single = pa.float32()
    columns = {
        "list": pa.array([[0.1, None], []], pa.list_(single)),
        "large": pa.array([[0.1], None], pa.large_list(single)),
        "object": pa.array(
            [{"x": 0.1, "y": "0.1"}, None], pa.struct([("x", single), ("y", "str")])
        ),
        "objects": pa.array([[{"x": 0.1}], None], pa.list_(pa.struct([("x", single)]))),
        "none": pa.array([None, float("inf")], single),
    }
    found = with_doubles(pa.RecordBatch.from_pydict(columns)).to_pylist()
    assert found[0] == {
        **{"list": [0.1, None], "large": [0.1], "object": {"x": 0.1, "y": "0.1"}},
        **{"objects": [{"x": 0.1}], "none": None},
    }
    assert found[1]["none"] == float("inf")
    same = pa.RecordBatch.from_pydict({"a": [0.1], "b": [b"x"]})
    assert with_doubles(same) is same


def test_answers_and_choices_of_parquet(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    count = len(VALUES)
    asked = {"question": ["How much?"] * count, "answer": pa.array(VALUES, pa.float32())}
    pq.write_table(pa.table(asked), file)
    rows = read(Source(kind="table", path=str(file)), RowKind.SFT)
    answers = [texts(row, "completion")[0] for row in rows]
    assert answers == ["0.1", "3.14", "1e-07", "12345.678", "0.3", "100"]
    choices = pa.array([[0.1, 0.2]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"question": ["?"], "answer": [0.2], "choices": choices}), file)
    (row,) = read(Source(kind="table", path=str(file)), RowKind.EVALUATION)
    assert (row["answers"], row["choices"]) == (["0.2"], ["0.1", "0.2"])
