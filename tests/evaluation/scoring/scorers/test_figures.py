"""What is published beside the mean, by hand from small tables of right and wrong."""

from typing import Any

import pytest

from siqvl.errors import UserError
from siqvl.evaluation.scoring.scorers import scorer


def line(score: float, type: str = "", group: str = "", answer: str = "yes") -> dict[str, Any]:
    return {"score": score, "type": type, "group": group, "answers": [answer]}


def figures(name: Any, lines: list[dict[str, Any]]) -> dict[str, float]:
    found = scorer(name).figures
    assert found is not None
    return found(lines)


def test_mme_adds_accuracy_and_the_share_of_pictures_that_are_right() -> None:
    pairs = {"count": [(1, 1), (1, 0), (0, 0), (1, 1)], "code_reasoning": [(1, 1)], "OCR": [(0, 1)]}
    lines = [
        line(score, type, f"{number}.png")
        for type, pictures in pairs.items()
        for number, pair in enumerate(pictures)
        for score in pair
    ]
    assert figures("mme", lines[::-1]) == {  # in any order
        "OCR": 50,
        "code_reasoning": 200,
        "count": 62.5 + 50,
        "cognition": 200,
        "perception": 162.5,
        "total": 362.5,
        "accuracy+": 50,  # three of six pictures
    }


def test_mme_of_half_a_pair_is_refused() -> None:
    lines = [line(1, "count", "1.png"), line(1, "OCR", "1.png"), line(1, "OCR", "1.png")]
    with pytest.raises(UserError, match=r"1 of type `count` are of group `1.png`: map `type`"):
        figures("mme", lines)


def test_pope_counts_each_way_to_choose_objects() -> None:
    # random: 3 of 4 there found, 1 of 4 absent ones seen; popular: nothing said to be there
    random = [line(score, "random") for score in (1, 1, 1, 0)]
    random += [line(score, "random", answer="no") for score in (1, 1, 1, 0)]
    popular = [line(0, "popular"), line(1, "popular", answer="no")]
    found = figures("pope", random + popular)
    own = {name.removeprefix("random "): value for name, value in found.items() if "random" in name}
    assert own == {"accuracy": 75, "precision": 75, "recall": 75, "F1": 75, "yes ratio": 50}
    assert found["popular precision"] == found["popular F1"] == found["popular yes ratio"] == 0
    assert found["popular accuracy"] == 50
    # of all: 3 right of 4 yes, 5 that are there
    assert (found["precision"], found["recall"]) == (75, 60)
    assert found["F1"] == pytest.approx(2 * 75 * 60 / (75 + 60))
    assert found["yes ratio"] == 40


def test_ocrbench_counts_right_answers_by_group() -> None:
    types = ["Regular Text Recognition", "Digit String Recognition", "Handwriting Recognition"]
    types += ["Doc-oriented VQA", "Handwritten Mathematical Expression Recognition"]
    lines = [line(score, type) for type in types for score in (1, 0, 1)]
    assert figures("ocrbench", lines) == {
        "final score": 10,
        "Text Recognition": 6,
        "Doc-oriented VQA": 2,
        "Handwritten Mathematical Expression Recognition": 2,
    }
