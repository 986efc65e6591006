"""A step that was killed at any point is done once, in one run that is FINISHED."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from siqvl.recipe import Recipe
from siqvl.tracking.runs import search, start_run
from tasks.contracts import PipelineRun
from tasks.once import once
from tasks.pipeline_run import PARENT, _settled
from tasks.unfinished import pipeline_folder


class Killed(BaseException):
    """What stands in for SIGKILL: whoever sees it does nothing more."""


@pytest.fixture
def run(recipe: Recipe) -> PipelineRun:
    folder = pipeline_folder(recipe, fresh=False)
    log = start_run(recipe, "pipeline", tags={"siqvl.folder": folder.name})
    return PipelineRun(name=folder.name, run_id=log.run_id)


@pytest.fixture
def step(recipe: Recipe, run: PipelineRun, tmp_path: Path) -> Callable[..., Counter[str]]:
    """A step that writes a file; what was done of it, and how its runs ended."""
    out, counts = tmp_path / "out", Counter[str]()

    def do(
        data: str = "a",
        begun: Callable[[], None] = lambda: None,
        kept: Callable[[], None] = lambda: None,
    ) -> Counter[str]:
        (tmp_path / data).mkdir(exist_ok=True)
        (tmp_path / data / "rows").write_text(data)

        def make(log: object) -> None:
            begun()
            counts["made"] += 1
            out.mkdir()
            (out / "file").write_text("content")

        def keep(log: object) -> None:
            counts["kept"] += 1
            kept()

        reads = [tmp_path / data, None]
        once("step", recipe, run, out, tags={}, reads=reads, make=make, keep=keep)
        return counts

    return do


def ended(recipe: Recipe, run: PipelineRun) -> Counter[str]:
    """How many runs of the step ended so, once the next process has looked at them."""
    _settled(recipe, run.name)
    return Counter(child.info.status for child in search(recipe, {PARENT: run.run_id}))


def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Kill this process, as far as its runs and marks are concerned."""

    def die() -> None:
        monkeypatch.setattr("siqvl.tracking.runs.end_run", lambda *_: None)
        raise Killed

    return die


def test_what_is_done_is_not_done_again(recipe: Recipe, run: PipelineRun, step) -> None:
    step()
    assert step() == {"made": 1, "kept": 1}
    assert ended(recipe, run) == {"FINISHED": 1}


def test_what_was_made_is_logged_to_the_run_that_made_it(
    recipe: Recipe, run: PipelineRun, step, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed), monkeypatch.context() as patched:
        step(kept=kill(patched))
    assert ended(recipe, run) == {"KILLED": 1}
    assert step() == {"made": 1, "kept": 2}
    assert ended(recipe, run) == {"FINISHED": 1}


def test_a_step_that_was_killed_before_its_run_ended_is_finished(
    recipe: Recipe, run: PipelineRun, step, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("siqvl.tracking.runs.end_run", lambda *_: None)
        step()
    assert ended(recipe, run) == {"FINISHED": 1}
    assert step() == {"made": 1, "kept": 1}


def test_a_step_that_had_made_nothing_is_done_in_a_run_of_its_own(
    recipe: Recipe, run: PipelineRun, step, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed), monkeypatch.context() as patched:
        step(begun=kill(patched))
    assert ended(recipe, run) == {"KILLED": 1}
    assert step() == {"made": 1, "kept": 1}
    assert ended(recipe, run) == {"KILLED": 1, "FINISHED": 1}


def test_what_was_made_of_other_data_is_made_again_aloud(
    recipe: Recipe, run: PipelineRun, step, caplog: pytest.LogCaptureFixture
) -> None:
    step()
    for _ in range(2):
        assert step("b") == {"made": 2, "kept": 2}
    said = "step `step` was done with other data than there is now; the step is done again"
    assert [record.getMessage() for record in caplog.records].count(said) == 1


def test_what_is_damaged_is_made_again_aloud(
    recipe: Recipe, run: PipelineRun, step, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    step()
    (tmp_path / "out" / "file").write_text("contend")
    assert step() == {"made": 2, "kept": 2}
    assert f"{tmp_path / 'out'} is not what step `step` left there" in caplog.text
    assert (tmp_path / "out" / "file").read_text() == "content"
