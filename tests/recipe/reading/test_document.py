"""The text of a recipe: which files and texts are none, each said in one sentence at once."""

import json
import shutil
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.recipe.reading import document
from siqvl.recipe.reading.document import parse_json, read_document

RECIPES = Path(__file__).parents[3] / "recipes"

#: PyYAML's constructors raise many kinds for these, IndexError and KeyError among them.
BROKEN = [
    "a: [1",
    "a: 2026-13-41",
    "a: !!int ''",
    "a: !!bool maybe",
    "a: !!timestamp x",
    "a: !!python/object:os.system {}",
    "a: *nobody",
    "? [1, 2]\n: 3",
    "a: " + "9" * 5000,
    "a: " + "[" * 2000,
    "a: 1\n---\nb: 2",
    "a: \x07",
]


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        Recipe.load(path)
    assert "\n" not in caught.value.message
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 1000
    return caught.value.message


def written(folder: Path, content: str | bytes, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_yaml_is_said_whatever_its_reader_raises(tmp_path: Path, text: str) -> None:
    assert "mine.yaml is not valid YAML: " in refused(written(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"# a comment\n", "holds no recipe"),
        (b"- just\n- a list\n", "holds no recipe"),
        ("name: gr\u00fcn".encode("latin-1"), "is not UTF-8 text (from byte 8)"),
        ("name: mine".encode("utf-16"), "is not UTF-8 text (from byte 0)"),
        (bytes(range(256)) * 8, "is not UTF-8 text"),
        (b"#" * (document.MOST + 1), "has more than 1,048,576 bytes"),
    ],
)
def test_what_holds_no_recipe_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refused(written(tmp_path, content))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "missing.yaml")
    assert "is a folder" in refused(tmp_path)
    assert "cannot be read" in refused(written(tmp_path, "name: mine") / "below")
    with pytest.raises(UserError, match=r"cannot be read: .*File name too long"):
        Recipe.load("x" * 300)
    with pytest.raises(UserError, match=r"cannot be read: embedded null"):
        Recipe.load("x\0y")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nname: mine\nseed: 1\n", "key `seed` stands twice, in lines 1 and 3"),
        ("stages:\n  dpo: {beta: 1, beta: 2}\n", "key `stages.dpo.beta` stands twice, in lines 2"),
        ("a:\n- {b: 1}\n- {b: 1, 'b': 2}\n", "key `a.1.b` stands twice, in lines 3 and 3"),
    ],
)
def test_a_key_that_stands_twice_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(written(tmp_path, text))


def test_a_key_that_stands_twice_in_json_is_named(tmp_path: Path) -> None:
    assert "key `b` stands twice" in refused(written(tmp_path, '{"a": {"b": 1, "b": 2}}', "a.json"))
    with pytest.raises(UserError, match=r"^--recipe: key `seed` stands twice"):
        parse_json('{"seed": 1, "seed": 1}', "--recipe")
    assert "a.json is not valid JSON" in refused(written(tmp_path, "{'a': 1}", "a.json"))


def test_a_merged_key_may_be_set_anew(tmp_path: Path) -> None:
    """`<<` is YAML's own way of a base; the nodes it merges are looked at as they are written."""
    text = "a: &a {one: 1, two: 2}\nb: &b {<<: *a, two: 3}\nc: {<<: *b, one: 4}\n"
    content = read_document(written(tmp_path, text))
    assert content["b"] == {"one": 1, "two": 3}
    assert content["c"] == {"one": 4, "two": 3}


def test_aliases_may_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many each line: ten lines stand for thousands of characters, forty for a disk."""
    monkeypatch.setattr(document, "MOST", 400)
    lines = ["a0: &a0 [xxxx, xxxx]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 11)]
    few = read_document(written(tmp_path, "\n".join(lines[:4])))
    assert few["a3"] == [[[["xxxx"] * 2] * 2] * 2] * 2
    said = "`a6` stands for more than 400 characters by its aliases"
    assert said in refused(written(tmp_path, "\n".join(lines)))
    merged = [*lines[:4], "k: &k {one: *a3, two: *a3}", "l: {<<: [*k, *k, *k]}"]
    assert "stands for more than 400 characters" in refused(written(tmp_path, "\n".join(merged)))


def test_an_alias_may_not_stand_in_itself(tmp_path: Path) -> None:
    assert "`a.b.0` is an alias of what it stands in" in refused(
        written(tmp_path, "a: &a {b: [*a]}\n")
    )


def test_json_is_read_as_yaml_is(tmp_path: Path) -> None:
    content = read_document(RECIPES / "tiny.yaml")
    text = json.dumps(content, indent="\t")
    assert Recipe.load(written(tmp_path, text, "tiny.json")) == Recipe.load(RECIPES / "tiny.yaml")
    assert parse_json(text, "--recipe") == content


def test_a_byte_order_mark_and_a_home_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path, b"\xef\xbb\xbf" + (RECIPES / "tiny.yaml").read_bytes())
    assert Recipe.load("~/mine.yaml") == Recipe.load(RECIPES / "tiny.yaml")
    shutil.copy(RECIPES / "tiny.yaml", tmp_path / "base.yaml")
    written(tmp_path, "base: ~/base.yaml\nseed: 3\n")
    assert Recipe.load(tmp_path / "mine.yaml").seed == 3
