"""Reports ranked: order, distances to the best, and what cannot be compared."""

from pathlib import Path

import numpy as np
import pytest

from siqvl.errors import UserError
from siqvl.evaluation.ranking import rank, ranking_table
from siqvl.recipe import Stage
from tests.written_reports import write_report


def report(folder: Path, **answers: list[float]) -> Path:
    """Answers of the model to the questions of some benchmarks."""
    about = {
        (name, "picture"): {f"q{number}": score for number, score in enumerate(scores)}
        for name, scores in answers.items()
    }
    return write_report(folder, Stage.VQA_SFT, about)


def test_the_best_comes_first_and_equals_in_the_order_given(tmp_path: Path) -> None:
    reports = {
        "low": report(tmp_path / "low", vqa=[1, 0, 0, 0]),
        "b": report(tmp_path / "b", vqa=[1, 1, 0, 0]),
        "high": report(tmp_path / "high", vqa=[1, 1, 1, 0]),
        "a": report(tmp_path / "a", vqa=[0, 0, 1, 1]),
    }
    ranking = rank(reports)
    assert [one.name for one in ranking] == ["high", "b", "a", "low"]
    assert [one.score for one in ranking] == [0.75, 0.5, 0.5, 0.25]
    assert [one.behind for one in ranking] == [0.0, 0.25, 0.25, 0.5]
    assert {one.questions for one in ranking} == {4}
    assert ranking[0].behind_interval == (0.0, 0.0)


def test_each_benchmark_has_its_own_best(tmp_path: Path) -> None:
    reports = {
        "one": report(tmp_path / "one", vqa=[1, 1], steps=[0, 0, 1]),
        "two": report(tmp_path / "two", vqa=[1, 0], steps=[1, 1, 1]),
    }
    ranking = [(one.benchmark, one.name, one.questions) for one in rank(reports)]
    assert ranking == [
        ("vqa", "one", 2),
        ("vqa", "two", 2),
        ("steps", "two", 3),
        ("steps", "one", 3),
    ]


def test_distances_are_paired_by_question(tmp_path: Path) -> None:
    """Against the textbook: the mean of differences, give or take 1.96 of its standard errors."""
    chance = np.random.default_rng(0)
    hard = chance.random(600)
    scores = {
        "best": (hard < 0.8).astype(float),
        "close": (hard + chance.normal(0, 0.02, 600) < 0.74).astype(float),
    }
    reports = {name: report(tmp_path / name, vqa=list(each)) for name, each in scores.items()}
    best, close = rank(reports)
    difference = scores["best"] - scores["close"]
    error = difference.std(ddof=1) / np.sqrt(600)
    assert close.behind == pytest.approx(difference.mean())
    low, high = close.behind_interval
    assert low == pytest.approx(difference.mean() - 1.96 * error, abs=0.004)
    assert high == pytest.approx(difference.mean() + 1.96 * error, abs=0.004)
    # of strangers the distance would be far less certain
    unpaired = np.sqrt(sum(each.var(ddof=1) for each in scores.values()) / 600)
    assert high - low < 0.6 * 2 * 1.96 * unpaired
    assert best.name == "best"


def test_questions_in_another_order_are_the_same_questions(tmp_path: Path) -> None:
    one = {("vqa", "picture"): {"x": 1.0, "y": 0.0, "z": 1.0}}
    other = {("vqa", "picture"): {"z": 0.0, "y": 0.0, "x": 1.0}}
    reports = {
        "one": write_report(tmp_path / "one", Stage.VQA_SFT, one),
        "other": write_report(tmp_path / "other", Stage.VQA_SFT, other),
    }
    assert rank(reports)[1].behind == pytest.approx(1 / 3)


def test_other_questions_are_one_line(tmp_path: Path) -> None:
    reports = {
        "one": report(tmp_path / "one", vqa=[1, 1]),
        "two": report(tmp_path / "two", vqa=[1, 0, 0]),
    }
    with pytest.raises(UserError, match="different questions"):
        rank(reports)


def test_a_report_without_a_benchmark_is_left_out_of_its_ranking(tmp_path: Path) -> None:
    reports = {
        "one": report(tmp_path / "one", vqa=[1, 1]),
        "two": report(tmp_path / "two", vqa=[1, 0], steps=[1]),
    }
    assert [(one.benchmark, one.name) for one in rank(reports)] == [
        ("vqa", "one"),
        ("vqa", "two"),
        ("steps", "two"),
    ]


def test_one_report_alone_and_none(tmp_path: Path) -> None:
    (alone,) = rank({"one": report(tmp_path / "one", vqa=[1, 0])})
    assert (alone.score, alone.behind) == (0.5, 0.0)
    assert rank({}) == []


def test_the_table_has_a_line_a_point(tmp_path: Path) -> None:
    reports = {
        "learning_rate=0.001": report(tmp_path / "low", vqa=[1, 0] * 10),
        "learning_rate=0.01": report(tmp_path / "high", vqa=[1, 1] * 10),
        "learning_rate=0.1": report(tmp_path / "equal", vqa=[1, 1] * 10),
    }
    header, rule, first, second, third, _, note = ranking_table(rank(reports)).splitlines()
    assert note == "vqa: generation, exact_match/1"
    assert header.split("  ")[0] == "benchmark"
    assert header.count("95 % interval") == 2
    assert set(rule) <= set("- ─")
    assert first.split()[:4] == ["vqa", "learning_rate=0.01", "20", "100.0"]
    assert first.rstrip().endswith("–")
    assert second.split()[:2] == ["vqa", "learning_rate=0.1"]
    assert third.split()[:4] == ["vqa", "learning_rate=0.001", "20", "50.0"]
    assert " 50.0 " in third.partition("50.0")[2]  # points behind the best
