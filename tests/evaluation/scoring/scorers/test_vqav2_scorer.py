"""VQAv2's accuracy, by hand from its definition (visualqa.org/evaluation)."""

from itertools import combinations

import pytest

from siqvl.evaluation.scoring.scorers import scorer
from siqvl.evaluation.scoring.scorers.vqa_answer import CONTRACTIONS, normalise

VQAV2 = scorer("vqav2")


@pytest.mark.parametrize(
    ("agreeing", "expected"),
    [
        (0, 0.0),
        (1, 0.3),  # the one left out in 1 subset of 10: (0 + 9 x 1/3) / 10
        (2, 0.6),  # (2 x 1/3 + 8 x 2/3) / 10
        (3, 0.9),  # (3 x 2/3 + 7 x 1) / 10
        (4, 1.0),  # three are left in any subset
        (10, 1.0),
    ],
)
def test_the_accuracy_of_some_agreeing_annotators(agreeing: int, expected: float) -> None:
    answers = ["red"] * agreeing + [f"other{n}" for n in range(10 - agreeing)]
    assert VQAV2.score("red", answers, []) == pytest.approx(expected)


@pytest.mark.parametrize("given", ["red", "blue", "green", "grey"])
def test_it_is_the_mean_over_all_subsets_of_nine(given: str) -> None:
    answers = ["red"] * 2 + ["blue"] * 3 + ["green"] * 5
    subsets = list(combinations(answers, 9))
    expected = sum(min(subset.count(given) / 3, 1) for subset in subsets) / len(subsets)
    assert VQAV2.score(given, answers, []) == pytest.approx(expected)


def test_a_tie_between_annotators_makes_both_right() -> None:
    answers = ["cat"] * 5 + ["dog"] * 5
    assert VQAV2.score("cat", answers, []) == VQAV2.score("dog", answers, []) == 1.0


def test_annotators_who_are_missing_said_something_else() -> None:
    assert VQAV2.score("red", ["red"], []) == pytest.approx(0.3)
    assert VQAV2.score("red", ["red", "red", "blue"], []) == pytest.approx(0.6)
    assert VQAV2.score("red", ["red"] * 4, []) == 1.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Two", "2"),
        ("none", "0"),
        ("a dog", "dog"),
        ("The  an A", ""),
        ("dont", "don't"),
        ("don't", "don't"),
        ("DONT.", "don't"),
        ("somebody'd", "somebodyd"),  # sic, in the official table
        ("1,000", "1000"),
        ("1,000 (about)", "1000 about"),
        ("yes, it is", "yes it is"),  # a mark beside a space goes
        ("black/white", "black white"),  # any other becomes a space
        ("t-shirt", "t shirt"),
        ("blue - green", "blue green"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("U.S.", "us"),
        (".5", ".5"),
        ("it's 5:30", "it's 5:30"),  # apostrophe and colon stay
        ("red\nblue\tgreen", "red blue green"),
    ],
)
def test_normalisation(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


def test_both_sides_are_normalised_also_where_all_annotators_agree() -> None:
    assert VQAV2.score("Yes.", ["yes"] * 10, []) == 1.0
    assert VQAV2.score("two", ["2"] * 6 + ["3"] * 4, []) == 1.0
    assert VQAV2.score("2", ["two"] * 10, []) == 1.0
    assert VQAV2.score("dog", ["A dog"] * 10, []) == 1.0
    assert VQAV2.score("dont know", ["don't know"] * 10, []) == 1.0


def test_contractions_end_in_apostrophes() -> None:
    assert len(CONTRACTIONS) == 116  # 120 in vqaEval.py, of which four are upper case
    without = {spelled for spelled in CONTRACTIONS.values() if "'" not in spelled}
    assert without == {"somebodyd"}
