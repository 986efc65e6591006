"""LLaVA's json: pictures beside it, text-only rows, several pictures, marks that do not fit."""

import json
from pathlib import Path
from typing import Any

from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture
from tests.data.sources.published_files import read, texts, write_json

JPEG = picture(format="JPEG")


def said(*turns: str) -> list[dict[str, str]]:
    roles = ("human", "gpt") * len(turns)
    return [{"from": role, "value": turn} for role, turn in zip(roles, turns, strict=False)]


#: The example of LLaVA's docs/Finetune_Custom_Data.md, a text-only row of ShareGPT, two pictures.
ROWS: list[dict[str, Any]] = [
    {
        "id": "997bb945-628d-4724-b370-b84de974a19f",
        "image": "part-000001/997bb945-628d-4724-b370-b84de974a19f.jpg",
        "conversations": said(
            "<image>\nWrite a prompt for Stable Diffusion to generate this image.",
            "a beautiful painting of chernobyl",
            "Shorter.",
            "chernobyl, painted",
        ),
    },
    {"id": "wgByO4Y_0", "model": "", "conversations": said("Hi.", "Hello.")},
    {
        "id": "000000033471",
        "image": ["a.jpg", "b.jpg"],
        "conversations": said("<image>\n<image>\nWhich is red?", "The first."),
    },
]


def folder_of(tmp_path: Path, rows: list[dict[str, Any]]) -> Source:
    write_json(tmp_path / "llava_instruct.json", rows)
    for name in (ROWS[0]["image"], "train2017/a.jpg", "train2017/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    return Source(kind="llava", path=str(tmp_path / "llava_instruct.json"))


def test_one_picture_none_and_two(tmp_path: Path) -> None:
    one, none, two = read(folder_of(tmp_path, ROWS), RowKind.SFT)
    assert texts(one, "prompt") == [
        "Write a prompt for Stable Diffusion to generate this image.",
        "a beautiful painting of chernobyl",
        "Shorter.",
    ]
    assert texts(one, "completion") == ["chernobyl, painted"]
    assert one["images"] == [JPEG]
    assert json.loads(one["meta"])["published_id"] == ROWS[0]["id"]
    assert (none["images"], texts(none, "completion")) == ([], ["Hello."])
    assert two["images"] == [JPEG, JPEG]  # in a folder beside the table
    assert texts(two, "prompt") == ["Which is red?"]


def test_a_folder_with_the_json_and_the_pictures(tmp_path: Path) -> None:
    expected = read(folder_of(tmp_path, ROWS), RowKind.SFT)
    assert read(Source(kind="llava", path=str(tmp_path)), RowKind.SFT) == expected


def test_marks_that_do_not_fit_the_pictures_are_damaged(tmp_path: Path) -> None:
    no_picture = ROWS[0] | {"image": None}
    one_of_two = ROWS[2] | {"image": ["a.jpg"]}
    unmarked = ROWS[1] | {"image": "a.jpg"}
    rows = read(folder_of(tmp_path, [no_picture, one_of_two, unmarked]), RowKind.SFT)
    assert [row.get("damaged") for row in rows] == [
        "1 <image> marks in its text, but 0 pictures",
        "2 <image> marks in its text, but 1 pictures",
        None,
    ]


def test_missing_pictures_and_other_objects_are_quarantined(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"image": "none.jpg"}, "text", ROWS[1] | {"conversations": "text"}, ROWS[1]]
    source = folder_of(tmp_path, rows)  # type: ignore[arg-type]
    data = DataPrep(max_quarantined=1.0)
    manifest = prepare([source], RowKind.SFT, tmp_path / "out", data=data, seed=0)
    assert manifest.quarantined == {
        "no image data": 1,
        "damaged record": 2,
    }
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text()
    assert "conversations is text, expected a list of turns" in lines
    assert manifest.rows == 1
