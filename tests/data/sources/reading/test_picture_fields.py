"""Which picture a name means, of several that are called so."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from siqvl.data.schema import RowKind
from siqvl.recipe import Source
from tests.data.made_pictures import picture
from tests.data.sources.published_files import read


def put(file: Path, content: Any) -> None:
    """A picture of a colour, or a table of rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        file.write_bytes(picture(content))
        return
    rows = [{"question": "What?", "answer": "a"} | row for row in content]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def shown(root: Path, split: str = "train", **keys: Any) -> list[str]:
    """The colour of each row's picture, or what stands in place of it."""
    rows = read(Source(kind="table", path=str(root), split=split, **keys), RowKind.SFT)
    return [_colour(row["images"][0]) for row in rows]


def _colour(image: bytes | str) -> str:
    if isinstance(image, str):
        return image
    pixel = Image.open(io.BytesIO(image)).convert("RGB").getpixel((0, 0))
    return {(255, 0, 0): "red", (0, 0, 255): "blue"}[pixel]


OTHERS = {
    "a picture of test": ("train/rows.jsonl", "0.png", "test/0.png", "test/rows.jsonl"),
    "its folder too": ("train/rows.jsonl", "img/0.png", "test/img/0.png", "test/rows.jsonl"),
    "without a table there": ("train/rows.jsonl", "0.png", "test_images/0.png", None),
    "further down": ("train/real/a.jsonl", "img/0.png", "val/img/0.png", None),
    "of another subset": ("art/rows.jsonl", "0.png", "maths/0.png", "maths/rows.jsonl"),
}


@pytest.mark.parametrize(("table", "name", "other", "its_table"), OTHERS.values(), ids=OTHERS)
def test_a_picture_that_is_missing_is_not_taken_from_another_part(
    tmp_path: Path, table: str, name: str, other: str, its_table: str | None
) -> None:
    put(tmp_path / table, [{"image": name}])
    put(tmp_path / other, "red")
    subsets = ["art"] if table.startswith("art") else []
    if its_table:
        put(tmp_path / its_table, [{"image": name}])
    assert shown(tmp_path, subsets=subsets) == [
        f"{name} (there is none but {other}, in the folder of another part: say the folder too)"
    ]


def test_an_own_picture_goes_before_those_of_other_parts(tmp_path: Path) -> None:
    for part, colour in (("train", "red"), ("test", "blue")):
        put(tmp_path / part / "rows.jsonl", [{"image": "0.png"}])
        put(tmp_path / f"{part}_images" / "0.png", colour)
    assert (shown(tmp_path), shown(tmp_path, "test")) == (["red"], ["blue"])


def test_pictures_of_other_parts_are_read_where_the_table_names_their_folder(
    tmp_path: Path,
) -> None:
    put(tmp_path / "train/rows.jsonl", [{"image": "test/0.png"}])
    put(tmp_path / "test/0.png", "red")
    assert shown(tmp_path) == ["red"]


@pytest.mark.parametrize("folder", ["images", "train2017", "test2017"])
def test_pictures_beside_the_folder_of_tables_are_found(tmp_path: Path, folder: str) -> None:
    """COCO's: the folder of tables is of no split, and numbers are unique over all photos."""
    put(tmp_path / "annotations/train.jsonl", [{"image": "0.png"}])
    put(tmp_path / folder / "0.png", "red")
    assert shown(tmp_path) == ["red"]
