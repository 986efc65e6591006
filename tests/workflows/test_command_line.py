"""The commands a user types, typed."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from siqvl.checkpoint import read_card
from siqvl.recipe import PIPELINE, Control, Recipe, Stage

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def small_yaml(checkout: Path, small_recipe: Callable[..., Recipe]) -> Path:
    content = small_recipe(checkout).model_dump(mode="json")
    claim = {  # holds whatever two steps teach: the control is there to be compared with
        "claim": "stage 1 is not wholly worse than its control",
        "stage": "projector_alignment",
        "benchmark": "vqa",
        "over": {"random_tower": True},
        "above": -1.01,
    }
    of_stage_4 = claim | {
        "claim": "stage 4 is not wholly worse than its control",
        "stage": "dpo",
        "over": {"likelihood_control": True},
    }
    content["evaluation"] |= dict.fromkeys(map(str, Control), True) | {"gates": [claim, of_stage_4]}
    path = checkout / "recipes" / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.integration
def test_the_full_pipeline(installed_pyflyte, checkout: Path, small_yaml: Path) -> None:
    printed = installed_pyflyte(
        "run",
        "workflows/full_pipeline.py",
        "full_pipeline",
        "--recipe",
        "recipes/small.yaml",
        folder=checkout,
    )
    for stage in PIPELINE:
        assert re.search(rf"{stage}\s+vqa\s+12", printed)
    (run,) = (checkout / "outputs" / "tiny").iterdir()
    assert read_card(run / "checkpoints" / "dpo").stage is Stage.DPO
    kept = {path.name for path in (run / "report").iterdir()}
    assert kept == {"stages.txt", "gates.json", "report.html"}
    assert re.search(r"passed  stage 1 is not wholly worse than its control\s+12", printed)
    assert re.search(r"passed  stage 4 is not wholly worse than its control\s+12", printed)
    assert re.search(r"promoted .*: all 2 gates passed", printed)
    for control in Control:
        card = read_card(run / "checkpoints" / f"{control.stage}-{control}")
        stage = read_card(run / "checkpoints" / control.stage)
        assert (card.control, stage.control) == (control, None)
        assert card.hash != stage.hash
        assert (card.parent, card.data_fingerprint) == (stage.parent, stage.data_fingerprint)
        assert f"over {control.words}" in printed


def readme_commands(after: str, before: str) -> list[list[str]]:
    """The local `pyflyte` commands between two headings of the README, as words."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    part = readme.split(f"\n## {after}\n")[1].split(f"\n## {before}\n")[0]
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", part, flags=re.DOTALL))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


@pytest.mark.integration
def test_each_stage_alone_as_the_readme_has_it(pyflyte, checkout: Path, small_yaml: Path) -> None:
    """Every command in its order, with another recipe; each finds what the one before has left."""
    content = yaml.safe_load(small_yaml.read_text())
    sampled = Recipe.load(ROOT / "recipes" / "tiny.yaml").stages.dpo.sampled.model_dump(mode="json")
    sampled["source"]["max_samples"] = 6
    content["stages"]["dpo"]["sampled"] = sampled
    content["output_dir"] = "outputs"
    (checkout / "recipes" / "single.yaml").write_text(yaml.safe_dump(content))

    commands = readme_commands("One stage at a time", "Use it")
    names = [words[3] for words in commands]
    others = {"data_prep", "evaluation", "preference_pairs", "sweep"}
    assert others | {*map(str, PIPELINE)} == set(names)
    printed = {}
    for words in commands:
        arguments = [*words[1:], "--recipe", "recipes/single.yaml"]
        printed[words[3]] = pyflyte(*arguments, folder=checkout)
    assert re.search(r"vqa_sft\s+vqa\s+12", printed["evaluation"])
    assert re.search(r"vqa\s+learning_rate=0\.0005\s+12", printed["sweep"])
    single = checkout / "outputs" / "tiny" / "single"
    assert read_card(single / "checkpoints" / "dpo").stage is Stage.DPO


def error_lines(printed: str) -> str:
    """The text inside the error panel, without its frame."""
    return " ".join(re.findall(r"│\s*(.*?)\s*│", printed))


def test_a_misspelt_key_is_one_line(pyflyte, checkout: Path) -> None:
    content = yaml.safe_load((checkout / "recipes" / "tiny.yaml").read_text())
    content["stages"]["vqa_sft"]["learning_rat"] = 1
    (checkout / "recipes" / "misspelt.yaml").write_text(yaml.safe_dump(content))
    arguments = ["workflows/full_pipeline.py", "full_pipeline", "--recipe", "recipes/misspelt.yaml"]
    printed = pyflyte("run", *arguments, folder=checkout, code=1)
    assert error_lines(printed) == (
        "recipes/misspelt.yaml: recipe: unknown key `stages.vqa_sft.learning_rat`, did you mean "
        "`learning_rate`?"
    )
    assert "Traceback" not in printed


def test_a_recipe_that_is_none_is_one_line(pyflyte, checkout: Path) -> None:
    (checkout / "recipes" / "twice.yaml").write_text("seed: 1\nseed: 2\n")
    for recipe, said in (
        ("recipes/none.yaml", "recipe file recipes/none.yaml does not exist"),
        ("recipes", "recipes is a folder"),
        ("recipes/twice.yaml", "recipes/twice.yaml: key `seed` stands twice, in lines 1 and 2"),
        ('{"base": "recipes/tiny.yaml", "seed": -1}', "recipe: `seed`: Input should be"),
    ):
        arguments = ["workflows/full_pipeline.py", "full_pipeline", "--recipe", recipe]
        printed = pyflyte("run", *arguments, folder=checkout, code=1)
        assert error_lines(printed).startswith(said)
        assert "Traceback" not in printed


def test_missing_data_is_one_line_before_any_work(pyflyte, checkout: Path) -> None:
    content = yaml.safe_load((checkout / "recipes" / "tiny.yaml").read_text())
    content["stages"]["dpo"]["sources"] = [{"kind": "easy_vqa", "path": "no/such/folder"}]
    (checkout / "recipes" / "missing.yaml").write_text(yaml.safe_dump(content))
    arguments = ["workflows/full_pipeline.py", "full_pipeline", "--recipe", "recipes/missing.yaml"]
    printed = pyflyte("run", *arguments, folder=checkout, code=1)
    assert "no/such/folder" in error_lines(printed)
    assert "Traceback" not in printed


def test_help_shows_the_recipe_option(installed_pyflyte, checkout: Path) -> None:
    arguments = ["run", "workflows/full_pipeline.py", "full_pipeline", "--help"]
    printed = installed_pyflyte(*arguments, folder=checkout)
    assert "--recipe" in printed
    assert "Warning" not in printed


#: What each file has to run, and what `pyflyte run FILE` lists.
LISTED = {
    "evaluated": ["evaluated"],
    "full_pipeline": ["full_pipeline"],
    "prepared_data": ["prepared_data"],
    "rewards": ["rewards"],
    "scheduled": ["scheduled"],
    "sweep": ["sweep"],
}


@pytest.mark.parametrize("name", LISTED)
def test_a_workflow_file_without_a_name_lists_what_there_is_to_run(
    name: str, pyflyte, checkout: Path
) -> None:
    assert {path.stem for path in (ROOT / "workflows").glob("[!_]*.py")} == set(LISTED)
    # without a name click ends with 2, as a command does that lacks a word
    for more, code in (([], 2), (["--help"], 0)):
        printed = pyflyte("run", f"workflows/{name}.py", *more, folder=checkout, code=code)
        assert "not supported" not in printed
        usage, _, commands = printed.partition("Commands")
        assert f"workflows/{name}.py [OPTIONS] COMMAND [ARGS]" in usage
        found = re.findall(r"^│ (\w+)", commands, flags=re.MULTILINE)
        assert found == LISTED[name]


HEAVY = ("torch", "transformers", "trl", "mlflow", "datasets", "accelerate")


def test_workflows_import_nothing_heavy() -> None:
    code = (
        "import sys, workflows.full_pipeline\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
