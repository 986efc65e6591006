"""Who is champion, on differences worked out by hand."""

from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.recipe import Stage
from siqvl.registry.champion import over_champion, over_floors
from tests.written_reports import write_report

QUESTIONS = 1000


def right(*which: range, first: int = 0) -> dict[str, float]:
    """A thousand questions, those in `which` answered right."""
    good = {index for some in which for index in some}
    return {f"q{index}": float(index in good) for index in range(first, first + QUESTIONS)}


def report(folder: Path, picture: dict[str, float], **others: object) -> Path:
    players = {name: value for name, value in others.items() if isinstance(value, dict)}
    rest = {name: value for name, value in others.items() if name not in players}
    answers = {("vqa", player): scores for player, scores in players.items()}
    return write_report(folder, Stage.DPO, {("vqa", "picture"): picture, **answers}, **rest)


@pytest.fixture
def champion(tmp_path: Path) -> Path:
    return report(tmp_path / "champion", right(range(600)))


def test_a_better_model_takes_its_place(champion: Path, tmp_path: Path) -> None:
    new = report(tmp_path / "new", right(range(650)))  # the same 600, and 50 more
    takes, sentence = over_champion(new, champion, "vqa", "version 3")
    assert takes
    # 50 ones, 950 zeros: error of the mean sqrt(0.05 * 0.95 / 1000) = 0.0069, interval ± 1.35
    assert sentence.startswith(
        "65.0 % of 1,000 questions of `vqa` right, version 3 60.0 %: +5.0 points (95 % interval +3."
    )
    assert sentence.endswith("must lie above 0) [generation, exact_match/1]")


def test_a_worse_model_does_not(champion: Path, tmp_path: Path) -> None:
    new = report(tmp_path / "new", right(range(550)))
    takes, sentence = over_champion(new, champion, "vqa", "version 3")
    assert not takes
    assert "−5.0 points" in sentence


def test_a_tie_does_not(champion: Path, tmp_path: Path) -> None:
    equal = over_champion(report(tmp_path / "new", right(range(600))), champion, "vqa", "version 3")
    assert not equal.moved
    assert "+0.0 points (95 % interval +0.0 … +0.0" in equal.sentence


def test_a_lead_that_chance_may_explain_does_not(champion: Path, tmp_path: Path) -> None:
    """100 questions won, 90 lost: +1.0 points, error sqrt(190) / 1000 = 1.4 points."""
    new = report(tmp_path / "new", right(range(90, 600), range(600, 700)))
    takes, sentence = over_champion(new, champion, "vqa", "version 3")
    assert not takes
    assert "+1.0 points (95 % interval −" in sentence


def test_what_both_find_hard_cancels_out(champion: Path, tmp_path: Path) -> None:
    """10 won and none lost: also +1.0 points, but error 0.3 points."""
    assert over_champion(
        report(tmp_path / "new", right(range(610))), champion, "vqa", "version 3"
    ).moved


def test_other_questions_decide_nothing(champion: Path, tmp_path: Path) -> None:
    new = report(tmp_path / "new", right(range(1000), first=500))
    with pytest.raises(UserError) as caught:
        over_champion(new, champion, "vqa", "version 3")
    assert caught.value.message.startswith(
        "benchmark `vqa` of the new model and benchmark `vqa` of version 3 are about different "
        "questions: 500 are only in the first, 500 only in the second, 500 in both"
    )


def test_another_scorer_decides_nothing(champion: Path, tmp_path: Path) -> None:
    new = report(tmp_path / "new", right(range(1000)), scorer="exact_match/2")
    with pytest.raises(UserError) as caught:
        over_champion(new, champion, "vqa", "version 3")
    assert caught.value.message == (
        "the two cannot be compared on benchmark `vqa`: its scorer is exact_match/2 for the new "
        "model, exact_match/1 for version 3"
    )


def test_a_report_without_the_benchmark_decides_nothing(champion: Path) -> None:
    with pytest.raises(UserError, match=r"has no scores of benchmark `gqa`"):
        over_champion(champion, champion, "gqa", "version 3")


def test_a_first_model_has_to_beat_the_highest_floor(tmp_path: Path) -> None:
    floors = {"majority": right(range(100)), "question_only": right(range(300))}
    good = report(tmp_path / "good", right(range(400)), **floors)
    takes, sentence = over_floors(good, "vqa")
    assert takes
    assert "the highest floor (the most frequent answer to the question) 30.0 %" in sentence
    assert "+10.0 points" in sentence
    blind = report(tmp_path / "blind", right(range(200)), **floors)  # above majority alone
    assert not over_floors(blind, "vqa").moved


def test_a_first_model_needs_somebody_to_beat(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no floor to beat"):
        over_floors(report(tmp_path / "alone", right(range(400))), "vqa")
