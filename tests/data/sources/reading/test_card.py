"""Cards that say which files are which split, beside what `datasets` makes of them."""

import json
from pathlib import Path

import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source

FILES = ["a/one.jsonl", "a/two.jsonl", "a/three.jsonl", "b/test.jsonl", "b/rest.jsonl"]
CARDS = {
    "one config, names that say other things": (
        """configs:
- config_name: default
  data_files:
  - {split: train, path: [a/one.jsonl, b/test.jsonl]}
  - {split: test, path: a/t*.jsonl}
""",
        [None],
    ),
    "two configs": (
        """configs:
- config_name: first
  data_files:
  - {split: train, path: a/*.jsonl}
  - {split: held, path: b/rest.jsonl}
- config_name: second
  data_files: b/*.jsonl
""",
        ["first", "second"],
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"question": name, "answer": "a"}) + "\n")
    return tmp_path


def card(folder: Path, configs: str) -> None:
    (folder / "README.md").write_text(f"---\n{configs}---\n# Made up\n")


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_read_as_datasets_reads_it(folder: Path, name: str) -> None:
    from datasets import load_dataset

    configs, subsets = CARDS[name]
    card(folder, configs)
    for subset in subsets:
        theirs = load_dataset(str(folder), subset, cache_dir=str(folder / ".cache"))
        for split in theirs:
            chosen = [subset] if subset else []
            source = Source(kind="table", path=str(folder), split=str(split), subsets=chosen)
            sources.check(source, RowKind.SFT)
            ours = [row["prompt"][0]["content"] for row in sources.rows(source, RowKind.SFT, 0)]
            assert ours == list(theirs[split]["question"])


def test_all_subsets_take_turns_where_none_is_named(folder: Path) -> None:
    card(folder, CARDS["two configs"][0])
    source = Source(kind="table", path=str(folder))
    with pytest.raises(UserError, match="unknown split `held`; it has train"):
        sources.check(source.model_copy(update={"split": "held"}), RowKind.SFT)
    asked = [row["prompt"][0]["content"] for row in sources.rows(source, RowKind.SFT, 0)]
    assert sorted(asked) == sorted(["a/one.jsonl", "a/two.jsonl", "a/three.jsonl", *FILES[3:]])


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ("configs: 7\n", "README.md cannot be understood"),
        (
            "configs:\n- config_name: default\n  data_files: nothing/*.csv\n",
            "no file matches nothing/*.csv, which it names for split `train`",
        ),
        (
            "configs:\n- config_name: default\n  data_dir: a\n",
            "names the folder a by `data_dir`, which is not read; give that folder as `path`",
        ),
        (
            "configs:\n- config_name: default\n  data_files: https://example.com/a.csv\n",
            "https://example.com/a.csv is no file of this folder, and not read",
        ),
    ],
)
def test_what_a_card_says_wrong_is_said(folder: Path, configs: str, message: str) -> None:
    card(folder, configs)
    with pytest.raises(UserError) as error:
        sources.check(Source(kind="table", path=str(folder)), RowKind.SFT)
    assert message in error.value.message


def test_a_split_is_found_by_any_of_its_names(folder: Path) -> None:
    both = "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: a/*}\n"
    card(folder, both + "  - {split: val, path: b/*}\n")
    for split in ("val", "validation", "dev"):
        source = Source(kind="table", path=str(folder), split=split)
        sources.check(source, RowKind.SFT)
        assert len(list(sources.rows(source, RowKind.SFT, 0))) == 2


def test_a_card_that_names_no_files_says_nothing(folder: Path) -> None:
    card(folder, "license: mit\n")
    with pytest.raises(UserError, match="say a split"):
        sources.check(Source(kind="table", path=str(folder)), RowKind.SFT)
