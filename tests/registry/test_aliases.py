"""The gate drill on a real registry: a better model takes `champion`, a worse one or a tie not."""

from collections.abc import Callable
from typing import Any

import pytest

from siqvl.recipe import Recipe
from siqvl.registry import promotion as module
from siqvl.registry.promotion import (
    CANDIDATE,
    CHAMPION,
    EVALUATION,
    Outcome,
    promote,
)
from siqvl.registry.versions import CHECKPOINT, Registry
from siqvl.tracking.runs import client, start_run
from tests.made_checkpoint import hash_of
from tests.registry.conftest import BENCHMARK, Scored

Pipeline = Callable[..., Outcome]


@pytest.fixture
def pipeline(registry: Registry, candidate: Callable[..., Scored]) -> Pipeline:
    """And then, where its gates passed."""

    def run(name: str, right: int, benchmark: str | None = BENCHMARK, **scored: Any) -> Outcome:
        scored_candidate = candidate(name, right, benchmark=benchmark, **scored)
        return promote(registry, *scored_candidate, benchmark)

    return run


def holders(registry: Registry) -> tuple[int | None, int | None]:
    """Versions that are candidate and champion."""
    found = [registry.holder(alias) for alias in (CANDIDATE, CHAMPION)]
    first, second = [one and one.number for one in found]
    return first, second


def test_the_drill(registry: Registry, pipeline: Pipeline) -> None:
    first = pipeline("a", 600)
    assert first.moved
    # 350 ones, 650 zeros: error of the mean sqrt(0.35 * 0.65 / 1000) = 0.0151, interval ± 2.96
    assert first.sentence.startswith(
        f"version 1 of `{registry.name}` is the champion: 60.0 % of 1,000 questions of `vqa` "
        "right, the highest floor (the most frequent answer to the question) 25.0 %: +35.0 points "
        "(95 % interval +32."
    )
    assert first.sentence.endswith(", must lie above 0) [generation, exact_match/1]")
    assert holders(registry) == (1, 1)

    worse = pipeline("b", 550)
    assert not worse.moved
    assert worse.sentence.startswith(
        f"version 2 of `{registry.name}` does not become the champion: 55.0 % of 1,000 questions "
        "of `vqa` right, version 1 60.0 %: −5.0 points"
    )
    assert holders(registry) == (2, 1)

    tie = pipeline("c", 600)
    assert not tie.moved
    assert "+0.0 points (95 % interval +0.0 … +0.0" in tie.sentence
    assert holders(registry) == (3, 1)

    better = pipeline("d", 650)
    assert better.moved
    assert "version 1 60.0 %: +5.0 points" in better.sentence
    assert holders(registry) == (4, 4)

    assert not pipeline("e", 620).moved  # better than the first champion, but not than this one
    assert holders(registry) == (5, 4)


def test_a_first_model_below_the_floors_is_no_champion(
    registry: Registry, pipeline: Pipeline
) -> None:
    outcome = pipeline("a", 240)
    assert not outcome.moved
    assert "−1.0 points" in outcome.sentence
    assert holders(registry) == (1, None)
    assert pipeline("b", 400).moved
    assert holders(registry) == (2, 2)


def test_other_questions_leave_the_champion(registry: Registry, pipeline: Pipeline) -> None:
    pipeline("a", 600)
    outcome = pipeline("b", 900, first=500)
    assert not outcome.moved
    assert "about different questions" in outcome.sentence
    assert "\n" not in outcome.sentence
    assert holders(registry) == (2, 1)


NEW = {"first": 500, "data": "another version of the benchmark"}


def test_the_champion_again_stays_and_is_judged_by_its_new_scores_too(
    registry: Registry, pipeline: Pipeline
) -> None:
    pipeline("a", 600)
    again = pipeline("a", 600, **NEW)  # from the cache
    assert not again.moved
    assert again.sentence == f"version 1 of `{registry.name}` is the champion already"
    assert pipeline("b", 900, **NEW).moved
    assert holders(registry) == (2, 2)


def test_a_later_pipeline_takes_nothing_from_the_champions_scores(
    registry: Registry, pipeline: Pipeline
) -> None:
    """Else nobody could be compared with it any more, and so nobody take its place."""
    pipeline("a", 600)
    before = registry.version(1).tags
    for _ in range(2):
        pipeline("a", 700)  # scored anew
        pipeline("a", 600, **NEW)
        pipeline("a", 600, benchmark=None)
        after = registry.version(1).tags
        assert before.items() <= after.items()
        before = after
    places = [value for name, value in after.items() if name.startswith(EVALUATION)]
    assert len(places) == len(set(places)) == 3  # the first; again; about other questions
    better = pipeline("b", 650)
    assert better.moved
    assert "version 1 60.0 %: +5.0 points" in better.sentence
    assert holders(registry) == (2, 2)


def test_scores_that_are_gone_leave_the_champion(
    registry: Registry, pipeline: Pipeline, recipe: Recipe
) -> None:
    pipeline("a", 600)
    empty = start_run(recipe, "empty")
    registry.tag(1, {EVALUATION: f"runs:/{empty.run_id}/evaluation"})
    outcome = pipeline("b", 900)
    assert not outcome.moved
    assert f"scores of the champion, runs:/{empty.run_id}/evaluation, are not there" in (
        outcome.sentence
    )
    client(registry.uri).delete_model_version_tag(registry.name, "1", EVALUATION)
    assert "has no tag siqvl.evaluation" in pipeline("c", 900).sentence
    assert holders(registry) == (3, 1)


def test_scores_of_another_checkpoint_leave_the_champion(
    registry: Registry, pipeline: Pipeline
) -> None:
    pipeline("a", 600)
    pipeline("b", 550)
    other = registry.find({CHECKPOINT: hash_of("b")})
    assert other is not None
    registry.tag(1, {EVALUATION: other.tags[EVALUATION]})
    outcome = pipeline("c", 900)
    assert not outcome.moved
    assert outcome.sentence.endswith("are those of another checkpoint")


def test_without_a_benchmark_gates_are_enough(registry: Registry, pipeline: Pipeline) -> None:
    pipeline("a", 600, benchmark=None)
    outcome = pipeline("b", 100, benchmark=None)
    assert outcome.moved
    assert outcome.sentence.endswith("the recipe names no champion_benchmark")
    assert holders(registry) == (2, 2)


def test_a_champion_made_meanwhile_is_the_one_to_beat(
    registry: Registry, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline("a", 600)
    pipeline("b", 500)
    pipeline("c", 550)
    registry.give(CHAMPION, 2)
    judge = module._judge

    def slow(*arguments: object) -> Outcome:
        outcome = judge(*arguments)  # type: ignore[arg-type]
        registry.give(CHAMPION, 1)  # by another pipeline
        return outcome

    with monkeypatch.context() as patched:
        patched.setattr(module, "_judge", slow)
        outcome = pipeline("c", 550)  # above version 2, below version 1
    assert not outcome.moved
    assert "version 1 60.0 %" in outcome.sentence
    assert holders(registry) == (3, 1)
