"""GQA: the hub's layout in small."""

from pathlib import Path

import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.sources.official.gqa import gqa_row, question
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.sources.published_files import write_parquet


def test_the_hubs_columns() -> None:
    """Columns of lmms-lab/GQA, config testdev_balanced_instructions, as on its dataset card."""
    record = {
        "id": "201307251",
        "imageId": "n161313",
        "question": "Is it overcast?",
        "answer": "no",
        "fullAnswer": "No, it is clear.",
        "isBalanced": True,
    }
    asked = question(record["id"], record)
    row = gqa_row(RowKind.EVALUATION, asked, b"picture", "testdev_balanced")
    assert row["id"] == "gqa/testdev_balanced/201307251"
    assert (row["question"], row["answers"], row["split"]) == ("Is it overcast?", ["no"], "testdev")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subsets": []}, "source `gqa` needs `subsets`"),
        ({"subsets": ["train"]}, "unknown subset `train`"),
        ({"split": "testdev"}, "subset `val_balanced` is not of split `testdev`"),
        ({"subsets": ["val_all"]}, "no val_all_questions.json below"),
    ],
)
def test_wrong_sources_are_one_line(tmp_path: Path, changes: dict, message: str) -> None:
    (tmp_path / "val_balanced_questions.json").write_text("{}")
    fields = {"kind": "gqa", "path": str(tmp_path), "subsets": ["val_balanced"], "split": "val"}
    with pytest.raises(UserError) as caught:
        sources.check(Source(**(fields | changes)), RowKind.SFT)
    assert message in caught.value.message


def test_the_hubs_tables_on_disk(tmp_path: Path) -> None:
    """A folder as `hf download lmms-lab/GQA` leaves it."""
    folder = tmp_path / "GQA"
    for image in ("n1", "n2"):
        record = {"id": image, "image": {"bytes": image.encode(), "path": f"{image}.jpg"}}
        file = f"testdev-0000{image[1]}-of-00002.parquet"
        write_parquet(folder / "testdev_balanced_images" / file, [record])
    asked = [
        {"id": f"20{number}", "imageId": image, "question": "Is it?", "answer": "no"}
        for number, image in enumerate(["n2", "n1", "n2", "n9"])
    ]
    instructions = folder / "testdev_balanced_instructions"
    write_parquet(instructions / "testdev-00000-of-00001.parquet", asked)
    source = Source(kind="gqa", path=str(folder), subsets=["testdev_balanced"], split="testdev")
    sources.check(source, RowKind.EVALUATION)
    rows = list(sources.rows(source, RowKind.EVALUATION, seed=0))
    assert [(row["id"].rpartition("/")[2], row["images"]) for row in rows] == [
        ("201", [b"n1"]),
        ("200", [b"n2"]),
        ("202", [b"n2"]),
        ("203", ["n9.jpg"]),  # no picture: preparation quarantines it
    ]
    assert list(sources.rows(source, RowKind.EVALUATION, 0, start=2, stop=3)) == rows[2:3]
