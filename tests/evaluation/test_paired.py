"""Paired comparison against figures worked out by hand."""

from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.evaluation.paired import compare
from siqvl.recipe import Stage
from tests.written_reports import write_report


def answers(right: set[int], count: int = 400) -> dict[str, float]:
    return {f"q{index}": float(index in right) for index in range(count)}


@pytest.fixture
def reports(tmp_path: Path) -> tuple[Path, Path]:
    """After stage 2: 300 of 400 right, after stage 1: 200, of which 150 are the same ones."""
    later = {("vqa", "picture"): answers(set(range(300))), ("vqa", "no_picture"): answers(set())}
    earlier = {("vqa", "picture"): dict(reversed(answers(set(range(150, 350))).items()))}
    return (
        write_report(tmp_path / "later", Stage.VQA_SFT, later),
        write_report(tmp_path / "earlier", Stage.PROJECTOR_ALIGNMENT, earlier),
    )


def test_questions_are_paired_by_id_not_by_place(reports: tuple[Path, Path]) -> None:
    comparison = compare(*reports, "vqa")
    assert (comparison.n, comparison.mean_a, comparison.mean_b) == (400, 0.75, 0.5)
    assert comparison.difference == 0.25
    # 150 times +1, 50 times -1, 200 times 0: variance 0.5 - 0.25**2, error of the mean 0.0331
    low, high = comparison.interval
    assert low == pytest.approx(0.25 - 1.96 * 0.0331, abs=0.008)
    assert high == pytest.approx(0.25 + 1.96 * 0.0331, abs=0.008)


def test_pairing_is_narrower_than_two_intervals(tmp_path: Path) -> None:
    """Both fail on the same half of the questions; one of them on ten more."""
    a = write_report(tmp_path / "a", Stage.DPO, {("vqa", "picture"): answers(set(range(200)))})
    b = write_report(tmp_path / "b", Stage.COT_SFT, {("vqa", "picture"): answers(set(range(190)))})
    low, high = compare(a, b, "vqa").interval
    # error of a difference that is 1 in 10 of 400 questions: sqrt(0.025 * 0.975 / 400) = 0.0078
    assert 0 < low < high
    assert high - low == pytest.approx(2 * 1.96 * 0.0078, abs=0.006)


def test_players_and_benchmarks_of_one_report(tmp_path: Path) -> None:
    report = write_report(
        tmp_path / "report",
        Stage.COT_SFT,
        {
            ("reasoned", "picture"): {"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.5},
            ("direct", "picture"): {"d": 0.0, "c": 0.0, "b": 1.0, "a": 0.0},
            ("direct", "majority"): {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0},
        },
    )
    assert compare(report, report, "reasoned", "direct").difference == (1 + 0 + 0 + 0.5) / 4
    blind = compare(report, report, "direct", player="picture", other_player="majority")
    assert blind.difference == -0.75


def test_equal_seeds_give_equal_intervals(reports: tuple[Path, Path]) -> None:
    assert compare(*reports, "vqa", seed=3) == compare(*reports, "vqa", seed=3)
    assert compare(*reports, "vqa", seed=3).interval != compare(*reports, "vqa", seed=4).interval


def test_other_questions_are_refused_by_both_names(tmp_path: Path) -> None:
    a = write_report(tmp_path / "a", Stage.DPO, {("vqa", "picture"): {"1": 1.0, "2": 1.0}})
    b = write_report(
        tmp_path / "b", Stage.DPO, {("vqa", "picture"): {"2": 1.0, "3": 1.0, "4": 1.0}}
    )
    with pytest.raises(UserError) as caught:
        compare(a, b, "vqa")
    assert caught.value.message == (
        f"benchmark `vqa` of {a} and benchmark `vqa` of {b} are about different questions: 1 are "
        "only in the first, 2 only in the second, 1 in both; evaluate both on the same prepared "
        "benchmarks"
    )


def test_a_player_that_did_not_play_is_named(reports: tuple[Path, Path]) -> None:
    later, earlier = reports
    with pytest.raises(UserError, match="no answers of player `no_picture` to benchmark `vqa`"):
        compare(later, earlier, "vqa", other_player="no_picture")
    with pytest.raises(UserError, match=r"is no evaluation report: it has no predictions\.parquet"):
        compare(later, later.parent, "vqa")
