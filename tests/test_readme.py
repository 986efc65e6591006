"""What the README says is there, and takes the options it is given."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from siqvl.cli.main import main
from siqvl.recipe import Recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    """Every `pyflyte run` of the README, as words; what registers is run by an integration test."""
    joined = "\n".join(BLOCKS).replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if re.search(r"\bpyflyte .*\brun\b", line)]
    return [shlex.split(line[line.index("pyflyte") :], comments=True) for line in lines]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_name_tasks_and_options_that_exist(words: list[str]) -> None:
    words = [word for word in words[words.index("run") + 1 :] if word != "--remote"]
    file, name, *options = words
    entity = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
    given = {option.removeprefix("--") for option in options if option.startswith("--")}
    assert given - {"set"} <= set(entity.python_interface.inputs)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    recipe = dict(pairs).get("--recipe", "recipes/tiny.yaml")
    Recipe.load(ROOT / recipe, [value for option, value in pairs if option == "--set"])


def test_commands_about_recipes_run_as_they_stand_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lines = [line for block in BLOCKS for line in block.splitlines()]
    typed = [shlex.split(line)[1:] for line in lines if line.startswith("siqvl recipe ")]
    assert [words[1] for words in typed] == ["show", "diff", "check"]
    for words in typed:
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output


def test_every_recipe_is_listed() -> None:
    listed = set(re.findall(r"^\| `([\w.-]+\.yaml)` \|", README, flags=re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "recipes").glob("*.yaml")}


def test_every_recipe_says_what_it_takes_or_that_nobody_measured() -> None:
    (head,) = re.findall(r"^\| recipe \|.*$", README, flags=re.MULTILINE)
    assert head.endswith("| hours | GiB of memory |")
    for row in re.findall(r"^\| `[\w.-]+\.yaml` \|.*$", README, flags=re.MULTILINE):
        for measured in [cell.strip() for cell in row.split("|")][-3:-1]:
            assert re.match(r"not measured$|\d+(\.\d+)?\b", measured), row


def test_scores_it_shows_are_those_of_the_whole_table() -> None:
    """A stage's line has `vqa` with and without the picture, `multistep-reasoned` with another."""
    printed = {}
    for line in TRAINING.split("## What it prints")[1].split("```")[1].splitlines():
        cells = re.split(r" {2,}", line.strip())
        if len(cells) == 10:
            printed[cells[0], cells[1]] = cells
    rows = re.findall(r"^\| \d `(\w+)` \| (.*) \|$", README, flags=re.MULTILINE)
    assert [stage for stage, _ in rows] == ["projector_alignment", "vqa_sft", "cot_sft", "dpo"]
    for stage, figures in rows:
        shown = [cell.strip() for cell in figures.split("|")]
        one_look = printed[stage, "vqa"]
        expected = [one_look[3], one_look[5]]
        steps = printed.get((stage, "multistep-reasoned"))
        expected += [steps[3], steps[6]] if steps else ["", ""]
        assert shown == expected


def test_the_tree_it_draws_is_there() -> None:
    drawn = README.split("## Where everything lives")[1].split("```")[1]
    folder = ROOT
    for line in drawn.strip().splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = ROOT / name
        path = folder / name if line.startswith(" ") else ROOT / name
        assert path.exists(), line


def test_links_and_make_targets_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)`?", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
