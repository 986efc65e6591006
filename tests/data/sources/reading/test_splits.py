"""The split of every file of a folder, beside what `datasets` itself says of the same folder."""

import gzip
import json
from pathlib import Path

import datasets
import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.sources.reading.splits import files_by_split, says_a_split, split_named
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.made_pictures import picture

ROW = '{"question": "What?", "answer": "%s"}\n'

#: Files of a folder, all of which `datasets` reads; `+` is a space.
WHOLE = {
    "one file": "rows.jsonl",
    "two files": "a.jsonl b.jsonl",
    "a word in front": "train.jsonl test.jsonl",
    "a word at the end": "vqa_train.jsonl vqa_val.jsonl vqa_test.jsonl",
    "a word in the middle": "my-train-rows.jsonl my-test-rows.jsonl",
    "years": "train2017.jsonl val2017.jsonl test2015.jsonl",
    "eval": "data_train.jsonl data_eval.jsonl",
    "evaluation": "evaluation.jsonl training.jsonl",
    "testing": "x.testing.jsonl x.training.jsonl",
    "dev": "dev.jsonl train.jsonl",
    "valid": "valid.jsonl train.jsonl",
    "no word at all": "trained/rows.jsonl contest/rows.jsonl",
    "contest is no test": "contest.jsonl latest.jsonl",
    "testdev is no test": "testdev.jsonl trainval.jsonl",
    "two words of one split": "train-train.jsonl",
    "words in capitals": "Train.jsonl TEST.jsonl",
    "spaces": "my+train.jsonl my+test.jsonl",
    "folders": "train/a.jsonl test/a.jsonl",
    "folders in folders": "train/part/a.jsonl test/part/x.jsonl",
    "folders further down": "rows/train/a.jsonl rows/test/a.jsonl",
    "val/real": "val/real/x.jsonl test/real/x.jsonl",
    "a word in a folder": "vqa_train/a.jsonl vqa_test/a.jsonl",
    "a word before in a folder": "train_split/a.jsonl test_split/a.jsonl",
    "a folder and its word": "train/train_0.jsonl train/train_1.jsonl test/test_0.jsonl",
    "a folder wins over a name": "train/test.jsonl test/train.jsonl",
    "a folder of two splits": "train/test/a.jsonl test/train/b.jsonl",
    "a name of two splits": "train_test.jsonl",
    "shards": "data/train-00000-of-00002.jsonl data/train-00001-of-00002.jsonl",
    "shards of any name": "data/train-00000-of-00001.jsonl data/own-00000-of-00001.jsonl",
    "shards at the top": "train-00000-of-00001.jsonl validation-00000-of-00001.jsonl",
    "data": "data/train.jsonl data/test.jsonl",
    "hidden files": "train.jsonl .hidden_test.jsonl",
    "hidden folders": "train.jsonl .cache/test/a.jsonl",
    "special folders": "train.jsonl __more__/test.jsonl",
    "gzip": "train.jsonl.gz test.jsonl.gz",
    "several endings": "train.a.jsonl train.b.jsonl dev.a.jsonl",
    "digits before": "2017train.jsonl 2017val.jsonl",
    "a dash": "train-a.jsonl train-b.jsonl val-a.jsonl",
    "one word alone": "vqa_test.jsonl",
}
#: Files of a folder, and those of it that `datasets` leaves out without a word.
MIXED = {
    "one without a word": ("train.jsonl test.jsonl extra.jsonl", "extra.jsonl"),
    "a file beside a folder": ("train/a.jsonl vqa_test.jsonl", "vqa_test.jsonl"),
    "a folder beside shards": (
        "data/train-00000-of-00001.jsonl test/a.jsonl",
        "test/a.jsonl",
    ),
    "a word that is none": ("train.jsonl testdev.jsonl", "testdev.jsonl"),
    "a folder without a word": ("training_set/a.jsonl contest/a.jsonl", "contest/a.jsonl"),
}


def written(root: Path, names: str) -> list[Path]:
    files = []
    for name in names.split():
        file = root / name.replace("+", " ")
        file.parent.mkdir(parents=True, exist_ok=True)
        content = (ROW % name).encode()
        file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        files.append(file)
    return files


def theirs(root: Path, cache: Path) -> dict[str, set[Path]]:
    builder = datasets.load_dataset_builder(str(root), cache_dir=str(cache))
    found = builder.config.data_files
    return {str(split): {Path(file) for file in files} for split, files in found.items()}


def seen(files: list[Path], root: Path) -> list[Path]:
    """Those which `datasets` looks at."""
    return [
        file
        for file in files
        if not any(part.startswith((".", "__")) for part in file.relative_to(root).parts)
    ]


@pytest.mark.parametrize("names", WHOLE.values(), ids=WHOLE)
def test_each_file_is_of_the_split_that_datasets_says(tmp_path: Path, names: str) -> None:
    root = tmp_path / "test_set"  # what the folder itself is called says nothing
    files = seen(written(root, names), root)
    wanted = theirs(root, tmp_path / "cache")
    assert {split: set(found) for split, found in files_by_split(files, root).items()} == wanted
    source = Source(kind="table", path=str(root))
    for split, of_it in wanted.items():
        one = source.model_copy(update={"split": split})
        sources.check(one, RowKind.EVALUATION)
        rows = [*sources.rows(one, RowKind.EVALUATION, 0)]
        answers = {row["answers"][0] for row in rows}
        assert answers == {file.relative_to(root).as_posix().replace(" ", "+") for file in of_it}
        assert len(rows) == len(of_it)
    for split in {"train", "validation", "test"} - set(wanted):
        with pytest.raises(UserError, match=f"unknown split `{split}`; it has "):
            sources.check(source.model_copy(update={"split": split}), RowKind.EVALUATION)


@pytest.mark.parametrize(("names", "left_out"), MIXED.values(), ids=MIXED)
def test_files_that_datasets_leaves_out_are_named(
    tmp_path: Path, names: str, left_out: str
) -> None:
    """Our one departure."""
    files = written(tmp_path / "set", names)
    read = set().union(*theirs(tmp_path / "set", tmp_path / "cache").values())
    assert [file for file in files if file not in read] == [tmp_path / "set" / left_out]
    source = Source(kind="table", path=str(tmp_path / "set"))
    with pytest.raises(UserError, match=rf"these say none: {left_out}; put a word") as caught:
        sources.check(source, RowKind.EVALUATION)
    assert str(tmp_path / "set") in caught.value.message


def test_many_files_without_a_split_are_counted(tmp_path: Path) -> None:
    files = written(tmp_path, "train.jsonl " + " ".join(f"x{letter}.jsonl" for letter in "abcdefg"))
    with pytest.raises(UserError, match=r"xe\.jsonl and 2 more; put"):
        files_by_split(files, tmp_path)


@pytest.mark.parametrize("split", ["train", "test", "anything"])
def test_a_single_file_needs_no_split(tmp_path: Path, split: str) -> None:
    (file,) = written(tmp_path, "vqa_test.jsonl")
    source = Source(kind="table", path=str(file), split=split)
    sources.check(source, RowKind.EVALUATION)
    (row,) = sources.rows(source, RowKind.EVALUATION, 0)
    assert row["split"] == split


def test_a_split_has_the_names_that_files_may_have(tmp_path: Path) -> None:
    written(tmp_path, "vqa_train.jsonl vqa_val.jsonl")
    for name in ("val", "dev", "valid", "validation"):
        (row,) = sources.rows(
            Source(kind="table", path=str(tmp_path), split=name), RowKind.EVALUATION, 0
        )
        assert row["answers"] == ["vqa_val.jsonl"]
    assert split_named("val", ["val", "validation"]) == "val"
    assert split_named("eval", ["train", "validation"]) == "eval"


@pytest.mark.parametrize(
    ("folder", "says"),
    [("test", True), ("vqa_val", True), ("train2", True), ("contest", False), ("ai2d", False)],
)
def test_folders_of_a_split_are_no_subsets(tmp_path: Path, folder: str, says: bool) -> None:
    assert says_a_split(folder) is says
    written(tmp_path, f"{folder}/a.jsonl")
    source = Source(kind="table", path=str(tmp_path), subsets=[folder])
    if says:
        with pytest.raises(UserError, match=f"unknown subset `{folder}`"):
            sources.check(source, RowKind.EVALUATION)
    else:
        sources.check(source, RowKind.EVALUATION)


def with_pictures(root: Path, **colors: str) -> None:
    for folder, color in colors.items():
        (root / folder / "images").mkdir(parents=True)
        (root / folder / "images" / "0.png").write_bytes(picture(color))


def table(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    row = {"image": "images/0.png", "question": "What color?", "answer": "one"}
    file.write_text(json.dumps(row) + "\n")


def pictures(source: Source) -> list:
    (row,) = sources.rows(source, RowKind.EVALUATION, 0)
    return row["images"]


def test_a_picture_is_looked_for_from_its_table_upwards(tmp_path: Path) -> None:
    with_pictures(tmp_path, test="red", val="blue")
    for split in ("test", "val"):
        table(tmp_path / split / "real" / "rows.jsonl")
    for split, color in (("test", "red"), ("validation", "blue")):
        assert pictures(Source(kind="table", path=str(tmp_path), split=split)) == [picture(color)]


def test_a_picture_that_could_be_several_is_not_guessed(tmp_path: Path) -> None:
    with_pictures(tmp_path, a="red", b="blue")
    table(tmp_path / "rows.jsonl")
    source = Source(kind="table", path=str(tmp_path))
    (found,) = pictures(source)
    two = "a/images/0.png and b/images/0.png"
    assert found == f"images/0.png (which one? {two} differ: say the folder too)"
    (tmp_path / "b" / "images" / "0.png").write_bytes(picture("red"))
    assert pictures(source) == [picture("red")]
