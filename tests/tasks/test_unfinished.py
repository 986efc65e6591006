"""Which folder a pipeline goes on in, when the same command is given again."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.stored import write_stored
from tasks import unfinished
from tasks.once import FOLDER, Mark
from tasks.unfinished import finish, pipeline_folder

#: Holds a folder as a pipeline does, says so, and leaves a fork behind when it is killed.
HOLDER = """
import os, sys, time
from pathlib import Path
from tasks.unfinished import _is_held
assert _is_held(Path(sys.argv[1]))
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""


@pytest.fixture
def recipe(tmp_path: Path, small_recipe) -> Recipe:
    return small_recipe(tmp_path)


def changed(recipe: Recipe, *keys: str, to: Any) -> Recipe:
    content = recipe.model_dump(mode="json")
    section = content
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = to
    return Recipe.model_validate(content)


def older(folder: Path) -> Path:
    """Have a folder be one of long ago, in which nobody works: names tell when pipelines began."""
    unfinished._held.pop(folder).close()
    return folder.rename(folder.with_name("20000101-000000-0000"))


def other_code(folder: Path, monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    """Have another version of siqvl begin a pipeline, and finish a step of it perhaps."""
    if done:
        write_stored(folder / FOLDER / "dpo data.json", Mark(reads=[], mlflow_run="1", made="2"))
    monkeypatch.setattr(unfinished, "code", lambda: "others")


def test_the_newest_unfinished_folder_is_gone_on_in(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    first = older(pipeline_folder(recipe, fresh=False))
    newer = pipeline_folder(recipe, fresh=True)
    assert capsys.readouterr().out == ""
    assert pipeline_folder(recipe, fresh=False) == newer
    assert capsys.readouterr().out == (
        f"going on in {newer} (no step is done); --fresh begins anew\n"
    )
    finish(newer)
    assert pipeline_folder(recipe, fresh=False) not in (newer, first)


def test_a_folder_that_says_nothing_is_passed_over_aloud(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = older(pipeline_folder(recipe, fresh=False))
    (folder / unfinished.RECORD).write_text("")
    assert pipeline_folder(recipe, fresh=False) != folder
    assert capsys.readouterr().out.startswith(f"passing over {folder}, whose pipeline.json is")


def test_a_folder_that_cannot_be_written_to_is_named(recipe: Recipe) -> None:
    folder = older(pipeline_folder(recipe, fresh=False))
    (folder / unfinished.LOCK).unlink()
    (folder / unfinished.LOCK).mkdir()  # root may write everywhere
    with pytest.raises(UserError, match=f"in {folder} cannot be gone on with .*, or .* --fresh"):
        pipeline_folder(recipe, fresh=False)


@pytest.mark.parametrize(
    ("keys", "to", "same"),
    [
        (("stages", "cot_sft", "learning_rate"), 0.5, False),
        (("tracking", "experiment"), "another", False),
        (("evaluation", "batch_size"), 3, False),
        (("compute", "training", "memory"), "64Gi", True),
        (("stages", "cot_sft", "saving_steps"), 1, True),
        (("changed_code",), "go_on", True),
    ],
)
def test_another_recipe_begins_anew_unless_it_comes_to_the_same(
    recipe: Recipe, keys: tuple[str, ...], to: object, same: bool
) -> None:
    folder = pipeline_folder(recipe, fresh=False)
    assert (pipeline_folder(changed(recipe, *keys, to=to), fresh=False) == folder) is same


def test_what_other_code_has_done_is_refused_until_it_is_said_what_to_do(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = older(pipeline_folder(recipe, fresh=False))
    other_code(folder, monkeypatch, done=True)
    with pytest.raises(UserError) as caught:
        pipeline_folder(recipe, fresh=False)
    said = f"1 steps of the unfinished pipeline in {folder} were done by other code (siqvl's own)"
    assert caught.value.message.startswith(said)
    assert "`changed_code: go_on`" in caught.value.message
    assert "--fresh" in caught.value.message
    go_on = changed(recipe, "changed_code", to="go_on")
    assert pipeline_folder(go_on, fresh=False) == folder
    assert "done by other code (siqvl's own): dpo data" in capsys.readouterr().out
    anew = pipeline_folder(changed(recipe, "changed_code", to="begin_anew"), fresh=False)
    assert anew != folder
    assert capsys.readouterr().out.startswith("beginning anew: 1 steps of")
    assert pipeline_folder(recipe, fresh=False) == anew


def test_other_code_that_has_done_nothing_is_no_matter(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pipeline_folder(recipe, fresh=False)
    other_code(folder, monkeypatch, done=False)
    assert pipeline_folder(recipe, fresh=False) == folder


def test_a_folder_in_which_a_process_works_is_left_alone(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    held = older(pipeline_folder(recipe, fresh=False))
    code = [sys.executable, "-c", HOLDER, str(held)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(code, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        fork = int(process.stdout.readline())
        try:
            begun = pipeline_folder(recipe, fresh=False)
            assert begun != held
            assert f"beginning anew beside {held}: another process" in capsys.readouterr().out
            (begun / unfinished.RECORD).unlink()
            process.kill()
            process.wait()
            assert pipeline_folder(recipe, fresh=False) == held  # whatever its forks do
        finally:
            os.kill(fork, signal.SIGKILL)


def test_without_locks_every_pipeline_has_a_folder_of_its_own(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("siqvl.locks.fcntl.flock", no_locks)
    assert pipeline_folder(recipe, fresh=False) != pipeline_folder(recipe, fresh=False)


def test_a_damaged_record_is_passed_over(recipe: Recipe) -> None:
    folder = pipeline_folder(recipe, fresh=False)
    (folder / unfinished.RECORD).write_text("{")
    assert pipeline_folder(recipe, fresh=False) != folder
