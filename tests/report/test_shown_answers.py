"""Which questions a page shows."""

from collections import Counter

import pytest

from siqvl.evaluation.scoring.scores import Scores
from siqvl.evaluation.shown_answers import Sample, pick_samples, written_answers
from siqvl.recipe import PIPELINE, Stage
from tests.made_pipeline import Made


def pick(made: Made, count: int) -> list[Sample]:
    return pick_samples(
        [(Scores.read(report), written_answers(report)) for report in made.reports], count
    )


def test_samples_are_spread_over_benchmarks_and_types(made: Made) -> None:
    samples = pick(made, 24)
    places = [(sample.question["benchmark"], sample.question["id"]) for sample in samples]
    assert len(set(places)) == 24
    # four benchmarks were answered in words, two with four types and two with three
    by_benchmark = Counter(sample.question["benchmark"] for sample in samples)
    assert set(by_benchmark.values()) == {6}
    assert "preferences" not in by_benchmark
    by_type = Counter((s.question["benchmark"], s.question["type"]) for s in samples)
    assert len(by_type) == 14
    assert set(by_type.values()) == {1, 2}


def test_samples_do_not_depend_on_outcomes(made: Made) -> None:
    """Of a group's nine questions (36 of 4 types), one is from the middle."""
    samples = {
        (sample.question["benchmark"], sample.question["type"]): sample for sample in pick(made, 14)
    }
    assert samples["vqa", "color"].question["id"].endswith(f"-{4 * 4:05d}")
    assert samples["vqa", "where"].question["id"].endswith(f"-{4 * 4 + 3:05d}")


def test_every_stage_that_answered_is_there(made: Made) -> None:
    for sample in pick(made, 24):
        late = sample.question["benchmark"].startswith("multistep")
        stages = [scores.stage for scores, _ in sample.answers]
        assert stages == [Stage.COT_SFT, Stage.DPO] if late else list(PIPELINE)
        assert {given["id"] for _, given in sample.answers} == {sample.question["id"]}


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_no_more_than_asked_for_and_than_there_are(made: Made, count: int) -> None:
    assert len(pick(made, count)) == min(count, 4 * 36)
