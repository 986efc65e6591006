"""`siqvl look` as it is typed: what it prints, the page it writes, and its errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from siqvl.cli.main import main
from tests.look.conftest import clean_rows, write_table
from tests.look.test_doubts import tiny


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["look", *map(str, words)])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "set", clean_rows())


def test_a_table(table: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "look.html"
    done = run(table, "-o", page, "--rows", 3)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "image, question, answer, choices" in done.stdout
    assert "choices are the text of a choice" in done.stdout
    assert "    user      <image>Which color is shape 0? Options: red, green, blue" in done.stdout
    assert "Nothing looks wrong, as far as 12 rows can tell." in done.stdout
    assert done.stdout.endswith(
        f"{page} (without tokens: a recipe says whose tokens, name one with --recipe)\n"
    )
    assert page.read_text(encoding="utf-8").count("<article") == 3


def test_columns_are_mapped_as_in_a_recipe(tmp_path: Path) -> None:
    rows = [
        {"n": n, "asked": f"Which, {n}?", "label": "AB"[n % 2], "A": f"r{n}", "B": f"b{n}"}
        for n in range(12)
    ]
    file = write_table(tmp_path, rows, "rows_test.csv")
    mapped = ("image=images/{n}.png", "question=asked", "answer=label", "choices=[A, B]")
    options = [word for one in mapped for word in ("--column", one)]
    words = ("--kind", "evaluation", *options, "-o", tmp_path / "look.html")
    done = run(file, *words)
    assert done.exit_code == 0
    assert "image ← images/{n}.png, question ← asked, answer ← label, choices ← A, B" in done.stdout
    assert "the letter of a choice" in done.stdout
    assert "answers   r0" in done.stdout
    off = run(
        file, *words[:2], *options[2:], "--column", "image=null", "-o", tmp_path / "look.html"
    )
    assert "None of 12 rows has a picture." in off.stdout


def test_a_recipe_with_one_bad_source(table: Path, tmp_path: Path) -> None:
    """The others are looked at all the same."""
    content = tiny()
    broken = tmp_path / "broken.csv"
    broken.write_text("image,question\n")
    content["stages"]["vqa_sft"]["sources"] = [
        {"kind": "table", "path": str(table)},
        {"kind": "table", "path": str(broken)},
    ]
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump(content))
    page = tmp_path / "look.html"
    done = run(recipe, "--stage", "vqa_sft", "-o", page)
    assert done.exit_code == 1
    assert "vqa_sft, source 2: It cannot be prepared: source `table`: sft rows need" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert 'class="learnt">red&lt;|im_end|&gt;</span>' in text
    assert "picture · 4 tokens" in text


ERRORS = {
    "nothing there": (["no/such.csv"], "no/such.csv does not exist"),
    "another split": (["FOLDER", "--split", "test"], "unknown split `test`; it has train"),
    "no column": (["TABLE", "--column", "answer=lable"], "no column `lable` for `answer`"),
    "no pair": (["TABLE", "--kind", "preference"], "preference rows need"),
    "a column without a name": (
        ["TABLE", "--column", "answer"],
        "should be like `--column answer=",
    ),
    "half a list": (
        ["TABLE", "--column", "choices=[A, B"],
        "a list is written like `choices=[A, B]`",
    ),
    "no such reading": (
        ["TABLE", "--choices-are", "roman"],
        "`choices_are`: Input should be 'text'",
    ),
    "no such adapter": (["TABLE", "--adapter", "tabel"], "unknown source kind `tabel`"),
    "a stage of nothing": (["TABLE", "--stage", "dpo"], "name the recipe with `--recipe`"),
    "an option of a recipe": (["recipes/tiny.yaml", "--split", "test"], "leave `--split` out"),
    "no such recipe": (["none.yaml"], "recipe file none.yaml does not exist"),
    "no such stage": (["recipes/tiny.yaml", "--stage", "sft"], "no stage is called `sft`; known"),
    "no place for the page": (["TABLE", "-o", "TABLE/look.html"], "cannot be written"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_goes_wrong_is_one_sentence(
    name: str, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    words, sentence = ERRORS[name]
    done = run(
        *(word.replace("TABLE", str(table)).replace("FOLDER", str(table.parent)) for word in words)
    )
    assert done.exit_code == 1
    assert done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert said.startswith("Error: ")
    assert sentence in said


def test_what_is_read_is_not_written_over(table: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: recipes/tiny.yaml\nname: mine\n")
    before = table.read_bytes(), recipe.read_bytes()
    for words, lost in (
        ((table, "-o", table), table),
        ((recipe, "-o", recipe), recipe),
        ((table, "--recipe", recipe, "-o", recipe), recipe),
    ):
        done = run(*words)
        assert done.exit_code == 1
        assert f"{lost} is what is read, and would be lost" in done.stderr
    assert (table.read_bytes(), recipe.read_bytes()) == before


def test_help_is_quick() -> None:
    """Whoever asks for help waits for no library that reads data or trains."""
    code = (
        "import sys, siqvl.cli.main as main\n"
        "slow = {'torch', 'transformers', 'datasets', 'siqvl.data.sources', 'siqvl.look'}\n"
        "sys.exit(', '.join(sorted(slow & {*sys.modules})) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
