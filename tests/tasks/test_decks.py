"""The live deck of a stage in training: in a pod it follows the page, whatever the store does."""

import html
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flytekit import Deck, FlyteContextManager, current_context
from flytekit.bin.entrypoint import setup_execution

from siqvl.recipe import Recipe
from tasks import decks
from tasks.contracts import PipelineRun
from tasks.decks import live, live_page
from tasks.projector_alignment import projector_alignment

NAME = "vqa_sft"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.html"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A task in a pod, as `pyflyte-execute` sets it up; gives the place of its deck."""
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "execution")
    monkeypatch.setenv("FLYTE_INTERNAL_TASK_NAME", "tasks.vqa_sft.vqa_sft")
    monkeypatch.setattr(decks, "SECONDS", 0.05)
    prefix = str(tmp_path / "store")
    with setup_execution(prefix, output_metadata_prefix=prefix) as context:
        state = context.execution_state
        params = state.user_space_params.with_enable_deck(True).build()
        state = context.with_execution_state(state.with_params(user_space_params=params))
        with FlyteContextManager.with_context(state):
            yield tmp_path / "store" / "deck.html"


def wait_for(found: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)


def shows(deck: Path, text: str) -> bool:
    return deck.exists() and text in html.unescape(deck.read_text())


def test_the_deck_follows_the_page_while_the_task_runs(pod: Path, page: Path) -> None:
    with live(NAME, page):
        time.sleep(0.2)
        assert not pod.exists()  # nothing to show yet
        page.write_text("<p>step 1</p>")
        wait_for(lambda: shows(pod, "step 1"))
        page.write_text("<p>step 2</p>")
        wait_for(lambda: shows(pod, "step 2"))
        assert not shows(pod, "step 1")
        page.write_text("<p>the last</p>")
    assert shows(pod, "the last")  # also if the task then fails
    assert [deck.name for deck in current_context().decks].count(NAME) == 1


def test_a_store_that_hangs_holds_nothing_up(
    pod: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decks, "PATIENCE", 0.2)
    hanging, calls = threading.Event(), []

    def publish() -> None:
        calls.append(page.read_text())
        hanging.wait(30)

    monkeypatch.setattr(Deck, "publish", staticmethod(publish))
    start = time.monotonic()
    with live(NAME, page):
        page.write_text("1")
        wait_for(lambda: calls == ["1"])
        for number in range(2, 9):
            page.write_text(str(number))
    assert time.monotonic() - start < 5
    assert calls == ["1"]
    hanging.set()
    wait_for(lambda: len(calls) == 2)
    assert calls[1] == "8"  # of those that waited the newest alone


def test_a_store_that_refuses_is_said_once(
    pod: Path, page: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def refuse(*args: object, **named: object) -> None:
        tried.append(1)
        raise OSError("the store is away")

    access = FlyteContextManager.current_context().file_access
    monkeypatch.setattr(access, "put_data", refuse)
    with caplog.at_level(logging.ERROR, "flytekit"), live(NAME, page):
        for number in range(3):
            page.write_text(str(number))
            wait_for(lambda count=number: len(tried) > count)
    said = [one.getMessage() for one in caplog.records if "deck" in one.getMessage()]
    assert said == ["Failed to write flyte deck html with error the store is away."]


def test_a_process_of_several_leaves_it_to_the_one_that_started_it(
    pod: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "execution")
    before = len(current_context().decks)
    with live(NAME, page):
        page.write_text("of a worker")
        time.sleep(0.2)
    assert not pod.exists()
    assert len(current_context().decks) == before


def test_here_the_page_is_a_file_of_the_pipelines_folder(
    small_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = small_recipe(tmp_path), PipelineRun(name="now")
    here = live_page(recipe, run, NAME)
    assert here == tmp_path / "outputs" / "tiny" / "now" / "training" / "vqa_sft.html"
    monkeypatch.setattr(Deck, "publish", staticmethod(lambda: pytest.fail("published")))
    here.parent.mkdir(parents=True)
    before = len(current_context().decks)
    with live(NAME, here):
        here.write_text("now")
    (deck,) = current_context().decks[before:]
    assert "now" in deck.html
    current_context().decks.remove(deck)


def test_in_a_pod_it_is_on_the_pods_own_disk(
    pod: Path, small_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Of several machines those without the first process have nothing to publish."""
    content = small_recipe(tmp_path).model_dump(mode="json")
    content["distributed"] = {"enabled": True, "nodes": 2, "shared_dir": str(tmp_path / "shared")}
    place = live_page(Recipe.model_validate(content), PipelineRun(name="now"), NAME)
    assert not place.is_relative_to(tmp_path / "shared")


def test_training_tasks_have_a_deck() -> None:
    assert projector_alignment.enable_deck
    assert projector_alignment.deck_fields == []
