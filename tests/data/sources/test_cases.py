"""Small inputs that were once misread in silence, each with what is right."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import Row, RowKind
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture

RED, BLUE = picture("red"), picture("blue")
IMAGE = {"image": "red.png"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(BLUE)
    return tmp_path


def lines(file: Path, *rows: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def read(path: Path, kind: RowKind = RowKind.SFT, **keys: Any) -> list[Row]:
    source = Source(kind="table", path=str(path), **keys)
    sources.check(source, kind)
    return list(sources.rows(source, kind, 0))


def answers(rows: list[Row]) -> list[str]:
    return [row["completion"][0]["content"] for row in rows]


def turns(row: Row) -> list[tuple[str, str]]:
    parts = [*row["prompt"], *row["completion"]]
    return [(turn["role"], turn["content"]) for turn in parts]


def test_01_answers_that_look_like_json_are_text(folder: Path) -> None:
    written = ["[12, 30, 200, 180]", '{"total": "3.50"}', '[{"point": [3, 4]}]']
    rows = [IMAGE | {"question": "Where?", "answer": answer} for answer in written]
    assert answers(read(lines(folder / "train.jsonl", *rows))) == written


def test_02_image_and_images_after_concatenation(folder: Path) -> None:
    about = {"question": "What color?", "answer": "red"}
    file = lines(
        folder / "train.jsonl",
        about | {"image": "red.png", "images": None},
        about | {"image": None, "images": ["red.png", "blue.png"]},
        about | {"image": "red.png", "images": ["blue.png"]},
    )
    one, two, both = read(file)
    assert (one["images"], two["images"]) == ([RED], [RED, BLUE])
    assert "differ" in both["damaged"]


def test_02b_what_is_mapped_wins(folder: Path) -> None:
    row = {"photo": "red.png", "images": [], "question": "What color?", "label": "red"}
    file = lines(folder / "train.jsonl", row | {"answers": ["old label"]})
    (found,) = read(file, columns={"image": "photo", "answer": "label"})
    assert (found["images"], answers([found])) == ([RED], ["red"])


def test_03_a_split_in_the_middle_of_a_name(folder: Path) -> None:
    for split in ("train", "val", "test"):
        lines(folder / f"vqa_{split}.jsonl", IMAGE | {"question": "Q?", "answer": split})
    for split, right in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert answers(read(folder, split=split)) == [right]


@pytest.mark.parametrize("choices", [["blue", "red"], "['blue', 'red']"])
def test_04_letters_and_lists_as_text(choices: Any, folder: Path) -> None:
    rows = [
        {"image": f"{color}.png", "question": "Which?", "choices": choices, "answer": letter}
        for color, letter in (("red", "B"), ("blue", "A"))
    ]
    found = read(lines(folder / "test.jsonl", *rows), RowKind.EVALUATION, split="test")
    assert [row["answers"] for row in found] == [["red"], ["blue"]]
    assert [row["choices"] for row in found] == [["blue", "red"]] * 2


def test_07_to_09_messages_and_places(folder: Path) -> None:
    typed = [{"type": "image"}, {"type": "text", "text": "What color?"}]
    asked = [{"role": "user", "content": "What color?"}]
    good, bad = ([{"role": "assistant", "content": one}] for one in ("red", "blue"))
    one = {"images": ["red.png"]}
    right = [("user", "What color?"), ("assistant", "red")]
    plain = {"role": "user", "content": "<image>What color?"}
    for number, row in enumerate(
        [
            one | {"messages": [{"role": "user", "content": typed}, *good]},
            {"image": "red.png", "prompt": asked, "completion": good},
            one | {"messages": [{"role": "system", "content": ""}, plain, *good]},
        ]
    ):
        (found,) = read(lines(folder / f"{number}.jsonl", row))
        assert (found["images"], turns(found)) == ([RED], right)
    pair = one | {"prompt": asked, "chosen": good, "rejected": bad}
    (found,) = read(lines(folder / "pairs.jsonl", pair), RowKind.PREFERENCE)
    assert (found["prompt"], found["chosen"], found["rejected"]) == (asked, good, bad)
    said = ["<image>\nWhat color is this?", "red", "<image>\nAnd this?", "blue"]
    later = [{"from": "gpt" if at % 2 else "human", "value": text} for at, text in enumerate(said)]
    inside = [
        {"from": "human", "value": "A: <image> B: <image> Which one is red?"},
        {"from": "gpt", "value": "A"},
    ]
    both = {"images": ["red.png", "blue.png"]}
    file = lines(
        folder / "placed.jsonl", both | {"conversations": later}, both | {"conversations": inside}
    )
    first, second = read(file)
    assert turns(first)[::2] == [
        ("user", "<image>What color is this?"),
        ("user", "<image>And this?"),
    ]
    assert turns(second)[0] == ("user", "A: <image> B: <image> Which one is red?")
    assert first["images"] == second["images"] == [RED, BLUE]


def test_10_and_21_ids_that_repeat_lose_no_row(folder: Path) -> None:
    rows = [IMAGE | {"id": 42, "question": f"Q {n}?", "answer": "red"} for n in range(3)]
    files = [lines(folder / name / "train.jsonl", *rows) for name in ("a", "b")]
    for name in ("a", "b"):
        (folder / name / "red.png").write_bytes(RED)
    made = [Source(kind="table", path=str(file)) for file in files]
    data = DataPrep(duplicates="none")
    manifest = prepare(made, RowKind.SFT, folder / "out", data=data, seed=0)
    assert manifest.rows_of_sources == [3, 3]
    assert manifest.quarantined == {}


def test_11_lists_in_cells_of_a_csv(folder: Path) -> None:
    def table(name: str, *rows: list[str]) -> Path:
        stream = io.StringIO()
        csv.writer(stream).writerows(rows)
        (folder / name).write_text(stream.getvalue())
        return folder / name

    several = ["images", "question", "answer"], ['["red.png", "blue.png"]', "Same?", "no"]
    assert read(table("train.csv", *several))[0]["images"] == [RED, BLUE]
    header = ["image", "question", "answers", "choices"]
    file = table("test.csv", header, ["red.png", "Q?", "['crimson', 'red']", "['red', 'blue']"])
    (row,) = read(file, RowKind.EVALUATION)  # other words for a choice count as well
    assert (row["answers"], row["choices"]) == (["crimson", "red"], ["red", "blue"])
    assert answers(read(file)) == ["red"]
    file = table("bad.csv", header, ["red.png", "Q?", "['crimson']", "['red', 'blue']"])
    (row,) = read(file, RowKind.EVALUATION)
    assert row["damaged"].startswith("answer 'crimson' is none of its choices")


def test_20_equal_names_in_two_splits(tmp_path: Path) -> None:
    for split, data in (("val", BLUE), ("test", RED)):
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "images" / "0.png").write_bytes(data)
        row = {"image_path": "images/0.png", "question": "Which?", "answer": split}
        lines(tmp_path / split / "real" / "shapes.jsonl", row)
    for split, data in (("validation", BLUE), ("test", RED)):
        (row,) = read(tmp_path, split=split, columns={"image": "image_path"})
        assert row["images"] == [data]


ODD: list[tuple[Any, list[str] | None, str | None]] = [
    ("[0, 1]", None, "[0, 1]"),
    ("{1, 2}", None, "{1, 2}"),
    ('["a","b"]', None, '["a","b"]'),
    ("2", ["four", "five", "six"], None),
    ("2", ["3", "2", "4"], "2"),
    (1, ["10", "20"], None),
    (True, ["True", "False"], "True"),
    ("b", ["x", "y"], None),
    ("zebra", ["cat", "dog"], None),
    (3.0, None, "3"),
    (3.14, None, "3.14"),
    ("N/A", None, "N/A"),
    ("nan", None, "nan"),
    (0, None, "0"),
    (False, None, "False"),
]


def test_22_odd_answers_are_what_they_say_or_bad(folder: Path) -> None:
    rows = [
        IMAGE | {"question": "Q?", "answer": answer} | ({"choices": choices} if choices else {})
        for answer, choices, _ in ODD
    ]
    file = lines(folder / "odd_test.jsonl", *rows)
    with pytest.raises(UserError, match="`choices_are: index0` or `choices_are: index1`"):
        read(file)
    found = read(file, choices_are="text")
    assert [None if "damaged" in row else answers([row])[0] for row in found] == [
        right for _, _, right in ODD
    ]


def test_23_an_unclosed_quote_swallows_nothing(folder: Path) -> None:
    rows = [f"red.png,what is {n}?,a{n}" for n in range(3_000)]
    rows[1_500] = 'red.png,"what is 1500?,a1500'
    (folder / "train.csv").write_text("\n".join(["image,question,answer", *rows]) + "\n")
    with pytest.raises(UserError, match="the quote that opens in line 1502 is not closed"):
        read(folder / "train.csv")
