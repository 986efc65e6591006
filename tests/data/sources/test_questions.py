"""Questions without their pictures are the very rows that `rows` gives, but for `images`."""

import json
from pathlib import Path

import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.sources.reading.tree import Tree
from siqvl.recipe import Source
from tests.data.sources.published_files import write_json


def without_images(rows) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "images"} for row in rows]


def compare(source: Source) -> None:
    expected = without_images(sources.rows(source, RowKind.EVALUATION, 3))
    assert expected
    assert without_images(sources.questions(source, 3)) == expected


@pytest.mark.parametrize("split", ["train", "test", "heldout"])
def test_generated_scenes(split: str) -> None:
    compare(Source(kind="shapes", split=split, subsets=["vqa", "reasoning"], max_samples=60))


def test_a_local_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"question": f"{n}?", "answer": "yes", "image": f"{n}.png"} for n in range(5)]
    table = tmp_path / "asked.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"picture")
    compare(Source(kind="table", path=str(table), max_samples=3))
    images = [row["images"] for row in sources.questions(Source(kind="table", path=str(table)), 0)]
    assert images == [[f"{number}.png"] for number in range(5)]


def test_what_is_appended_to_every_question() -> None:
    for kind in (RowKind.SFT, RowKind.PREFERENCE, RowKind.EVALUATION):
        plain = Source(kind="shapes", subsets=["reasoning"], split="test", max_samples=3)
        source = plain.model_copy(update={"prompt_suffix": "\nIn one word."})
        pairs = zip(sources.rows(plain, kind, 0), sources.rows(source, kind, 0), strict=True)
        for before, after in pairs:
            if kind is RowKind.EVALUATION:
                assert after["question"] == before["question"] + "\nIn one word."
            else:
                asked = before["prompt"][-1]["content"]
                assert after["prompt"][-1]["content"] == asked + "\nIn one word."
                assert after["prompt"][:-1] == before["prompt"][:-1]
    compare(source)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch):
    """Any picture that is read from a folder or archive fails the test."""

    def forbid() -> None:
        def read(*_: object) -> bytes:
            raise AssertionError("a picture was read")

        monkeypatch.setattr(Tree, "picture", read)
        monkeypatch.setattr(Tree, "picture_at", read)

    return forbid


def test_easy_vqa(tmp_path: Path, unread) -> None:
    asked = [[f"is it {color}?", "yes", n] for n, color in enumerate(["red", "blue", "teal"])]
    write_json(tmp_path / "train" / "questions.json", asked)
    source = Source(kind="easy_vqa", path=str(tmp_path), max_samples=2)
    expected = without_images(sources.rows(source, RowKind.EVALUATION, 3))
    unread()
    assert without_images(sources.questions(source, 3)) == expected


def test_official_downloads(tmp_path: Path, unread) -> None:
    write_json(
        tmp_path / "gqa" / "val_balanced_questions.json",
        {"7": {"imageId": "5", "question": "What is it?", "answer": "dog"}},
    )
    write_json(
        tmp_path / "textvqa" / "TextVQA_0.5.1_train.json",
        {"data": [{"question_id": 1, "image_id": "x", "question": "Q?", "answers": ["a"] * 10}]},
    )
    gqa = Source(kind="gqa", path=str(tmp_path / "gqa"), subsets=["val_balanced"], split="val")
    textvqa = Source(kind="textvqa", path=str(tmp_path / "textvqa"))
    expected = [without_images(sources.rows(one, RowKind.EVALUATION, 3)) for one in (gqa, textvqa)]
    unread()
    found = [without_images(sources.questions(one, 3)) for one in (gqa, textvqa)]
    assert found == expected
    assert found[0][0]["answers"] == ["dog"]
    assert found[1][0]["answers"] == ["a"] * 10


def types(source: Source) -> list[str]:
    return [json.loads(row["meta"])["type"] for row in sources.questions(source, 0)]


def test_the_type_of_a_question_as_its_tables_are_split(tmp_path: Path) -> None:
    asked = [["is it red?", "no", 0], ["what shape?", "circle", 0], ["what color?", "teal", 0]]
    write_json(tmp_path / "easy" / "train" / "questions.json", [*asked, ["how many?", "5", 0]])
    easy = Source(kind="easy_vqa", path=str(tmp_path / "easy"))
    assert types(easy) == ["yes/no", "shape", "color", ""]
    write_json(
        tmp_path / "gqa" / "val_balanced_questions.json",
        {
            # `types` as published (detailed, semantic, structural), and in forms it should not have
            "1": {"types": {"detailed": "relS", "semantic": "rel", "structural": "query"}},
            "2": {"types": "query"},
            "3": {},
        },
    )
    gqa = Source(kind="gqa", path=str(tmp_path / "gqa"), subsets=["val_balanced"], split="val")
    assert types(gqa) == ["query", "", ""]
