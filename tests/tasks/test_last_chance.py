"""An attempt that may be the last one says so."""

import pytest

from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from tasks import last_chance as module
from tasks.contracts import TINY
from tasks.last_chance import last_chance, say_last_chance


def recipe(retries: int = 1, system_retries: int | None = 3) -> Recipe:
    content = TINY.model_dump(mode="json")
    content["compute"] = {
        "training": {"retries": retries},
        "system_retries": system_retries,
    }
    return Recipe.model_validate(content)


def said(retries: int, system_retries: int | None) -> list[str]:
    """What the attempts of a task say, from the first to the last there can be."""
    found = recipe(retries, system_retries)
    most = retries + (system_retries or 0) + 1
    return [last_chance(number, Kind.TRAINING, found) or "" for number in range(most)]


def test_the_first_of_several_attempts_says_nothing() -> None:
    assert said(1, 3)[0] == ""
    assert said(5, 3)[:3] == ["", "", ""]


def test_after_three_lost_pods_the_fourth_attempt_is_the_last_whatever_retries_is() -> None:
    fourth = said(5, 3)[3]
    assert fourth == (
        "attempt 4 of this task may be its last chance: if the 3 before it lost their pods, a lost "
        "pod ends the task (compute.system_retries is 3, compute.training.retries is 5)"
    )


def test_what_counts_against_retries_is_told_apart() -> None:
    second = said(1, 3)[1]
    assert "if the one before it ran out of memory or lost a worker, that ends it" in second
    assert "a lost pod ends" not in second
    both = said(1, 3)[3]
    assert "a lost pod ends the task" in both
    assert "ran out of memory" in both


def test_one_after_which_there_can_be_none_is_sure() -> None:
    assert said(1, 3)[4].startswith("attempt 5 of this task is its last chance, whatever ends it")


def test_a_cluster_that_ignores_the_cause_has_one_count() -> None:
    assert said(3, None)[:3] == ["", "", ""]
    assert said(3, None)[3] == (
        "attempt 4 of this task is its last chance, whatever ends it: compute.training.retries is 3"
    )


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(module, "_said", [])
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")
    monkeypatch.setenv("FLYTE_ATTEMPT_NUMBER", "3")
    monkeypatch.setenv("SIQVL_KIND", "training")
    return monkeypatch


def test_a_pod_says_it_once(pod: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        say_last_chance(recipe())
    assert caplog.text.count("attempt 4 of this task") == 1


def test_elsewhere_there_are_no_attempts(pod: pytest.MonkeyPatch, caplog) -> None:
    pod.delenv("FLYTE_INTERNAL_EXECUTION_ID")
    say_last_chance(recipe())
    assert not caplog.text
