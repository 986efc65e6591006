"""`--set` of `pyflyte run`: on every command with a recipe, which is changed before it starts."""

import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from flytekit.clis.sdk_in_container.pyflyte import main
from flytekit.clis.sdk_in_container.run import RunLevelParams, WorkflowCommand
from flytekit.core.workflow import PythonFunctionWorkflow

from siqvl.recipe import Recipe
from tasks import pipeline_run
from tasks.resources import registered_recipe

ROOT = Path(__file__).parents[2]
RATE = "stages.dpo.learning_rate=1e-4"
FILES = sorted([*(ROOT / "tasks").glob("*.py"), *(ROOT / "workflows").glob("*.py")])


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def commands(file: Path) -> dict[str, click.Command]:
    """What `pyflyte run FILE` offers, but for the failure node, which no command can start."""
    with main.make_context("pyflyte", ["run", "--help"], resilient_parsing=True) as context:
        run = main.commands["run"]
        with run.make_context("run", ["x"], parent=context, resilient_parsing=True) as inner:
            inner.obj = RunLevelParams.from_dict({**inner.params, "remote": False})
            group = WorkflowCommand(str(file))
            names = [name for name in group.list_commands(inner) if name != "close_run"]
            return {name: group.get_command(inner, name) for name in names}


def test_every_command_with_a_recipe_has_it_and_no_other() -> None:
    found: dict[str, bool] = {}
    for file in FILES:
        if file.name != "elastic_training.py":  # imports torch; declared like the others
            for name, command in commands(file).items():
                names = {param.name for param in command.params}
                found[name] = "recipe" in names
                assert ("changes" in names) is found[name], name
    assert sum(found.values()) >= 15
    assert not all(found.values())


def given(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Any, Recipe | None]:
    """What the pipeline gets of a command line, without running it."""
    got: list[Recipe] = []

    def keep(self: PythonFunctionWorkflow, *args: Any, **inputs: Any) -> str:
        got.append(inputs["recipe"])
        return "done"

    monkeypatch.setattr(PythonFunctionWorkflow, "__call__", keep)
    pipeline = ["workflows/full_pipeline.py", "full_pipeline"]
    done = CliRunner().invoke(main, ["run", *pipeline, *words])
    return done, got[0] if got else None


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "seed=5", "--set", RATE],
        ["--set", '["seed=5", "stages.dpo.learning_rate=1e-4"]'],
        ["--recipe", "recipes/tiny.yaml", "--set", '["seed=5","stages.dpo.learning_rate=1e-4"]'],
        ["--set=seed=5", "--recipe", '{"base": "recipes/tiny.yaml", "seed": 3}', "--set", RATE],
    ],
)
def test_a_task_gets_the_changed_recipe(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    done, recipe = given(monkeypatch, *words)
    assert done.exit_code == 0, done.output
    assert recipe == Recipe.load("recipes/tiny.yaml").changed(["seed=5", RATE])


def test_a_file_of_inputs_has_it_as_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "inputs.yaml").write_text("fresh: true\nset: [seed=5]\n")
    done, recipe = given(monkeypatch, "--inputs-file", str(tmp_path / "inputs.yaml"))
    assert done.exit_code == 0, done.output
    assert recipe is not None
    assert recipe.changes == ["seed=5"]


def test_a_change_that_is_none_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    done, recipe = given(monkeypatch, "--set", "sed=5")
    assert (done.exit_code, recipe) == (1, None)
    assert "did you mean `seed`?" in done.output


def test_what_a_task_is_registered_with_is_changed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "pyflyte run --remote tasks/vqa_sft.py vqa_sft"
    change = ["--set", '["compute.training.memory=77Gi"]']
    for words in (change, ["--recipe", '{"base": "recipes/tiny.yaml", "seed": 3}', *change]):
        monkeypatch.setattr(sys, "argv", [*line.split(), *words])
        assert registered_recipe().compute.training.memory == "77Gi"


def test_runs_tell_the_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_recipe: Any
) -> None:
    from siqvl.tracking.runs import client, end_run, start_run, tracking_uri

    recipe = small_recipe(tmp_path).changed(["stages.vqa_sft.learning_rate=1e-4", "seed=9"])
    run_id = pipeline_run._parent_run(recipe, "20261130-101112-abcd")
    child = start_run(recipe, "vqa_sft", parent=run_id)
    end_run(child, "FINISHED")
    store = client(tracking_uri(recipe))
    parent = store.get_run(run_id)
    words = "vqa_sft.learning_rate=1e-4, seed=9"
    assert parent.info.run_name == f"tiny 20261130-101112 {words}"
    for run in (parent, store.get_run(child.run_id)):
        assert run.data.tags["siqvl.set"] == "stages.vqa_sft.learning_rate=1e-4\nseed=9"
        assert "--set seed=9" in run.data.tags["mlflow.note.content"]
    assert parent.data.params["stages.vqa_sft.learning_rate"] == "0.0001"
    end_run(pipeline_run.run_log(recipe, run_id), "FINISHED")
