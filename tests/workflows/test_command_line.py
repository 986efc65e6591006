"""The commands a user types, typed."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from siqvl.recipe import Recipe, Stage
from siqvl.training.checkpoints import read_card

ROOT = Path(__file__).parent.parent.parent


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
    content["evaluation"] |= {"random_tower": True, "gates": [claim]}
    path = checkout / "recipes" / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.integration
def test_the_full_pipeline(pyflyte, checkout: Path, small_yaml: Path) -> None:
    printed = pyflyte(
        "run",
        "workflows/full_pipeline.py",
        "full_pipeline",
        "--recipe",
        "recipes/small.yaml",
        folder=checkout,
    )
    for stage in Stage:
        assert re.search(rf"{stage}\s+vqa\s+12", printed)
    (run,) = (checkout / "outputs" / "tiny").iterdir()
    assert read_card(run / "checkpoints" / "dpo").stage is Stage.DPO
    kept = {path.name for path in (run / "report").iterdir()}
    assert kept == {"stages.txt", "gates.json", "report.html"}
    assert re.search(r"passed  stage 1 is not wholly worse than its control\s+12", printed)
    assert re.search(r"promoted .*: the gate passed", printed)
    control = read_card(run / "checkpoints" / "projector_alignment-random_tower")
    assert control.recipe.model.random_tower
    assert control.hash != read_card(run / "checkpoints" / "projector_alignment").hash


@pytest.mark.integration
def test_each_stage_alone(pyflyte, checkout: Path, small_yaml: Path) -> None:
    recipe = ["--recipe", "recipes/small.yaml"]
    single = checkout / "outputs" / "tiny" / "single"

    def prepared(name: str) -> str:
        pyflyte("run", "tasks/data_prep.py", "data_prep", "--stage", name, *recipe, folder=checkout)
        return str(single / "data" / name)

    checkpoint: list[str] = []
    for stage in Stage:
        data = prepared(stage.value)
        arguments = [f"tasks/{stage}.py", stage.value, "--data", data, *checkpoint, *recipe]
        pyflyte("run", *arguments, folder=checkout)
        checkpoint = ["--checkpoint", str(single / "checkpoints" / stage.value)]
    arguments = ["tasks/evaluation.py", "evaluation", "--data", prepared("evaluation")]
    printed = pyflyte("run", *arguments, *checkpoint, *recipe, folder=checkout)
    assert re.search(r"dpo\s+vqa\s+12", printed)


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
        "recipe: unknown key `stages.vqa_sft.learning_rat`, did you mean `learning_rate`?"
    )
    assert "Traceback" not in printed


def test_a_missing_recipe_is_a_usage_error(pyflyte, checkout: Path) -> None:
    arguments = ["workflows/full_pipeline.py", "full_pipeline", "--recipe", "recipes/none.yaml"]
    printed = pyflyte("run", *arguments, folder=checkout, code=2)
    assert "recipes/none.yaml" in printed
    assert "Traceback" not in printed


def test_missing_data_is_one_line_before_any_work(pyflyte, checkout: Path) -> None:
    content = yaml.safe_load((checkout / "recipes" / "tiny.yaml").read_text())
    content["stages"]["dpo"]["sources"] = [{"kind": "easy_vqa", "path": "no/such/folder"}]
    (checkout / "recipes" / "missing.yaml").write_text(yaml.safe_dump(content))
    arguments = ["workflows/full_pipeline.py", "full_pipeline", "--recipe", "recipes/missing.yaml"]
    printed = pyflyte("run", *arguments, folder=checkout, code=1)
    assert "no/such/folder" in error_lines(printed)
    assert "Traceback" not in printed


def test_help_shows_the_recipe_option(pyflyte, checkout: Path) -> None:
    arguments = ["run", "workflows/full_pipeline.py", "full_pipeline", "--help"]
    assert "--recipe" in pyflyte(*arguments, folder=checkout)


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
