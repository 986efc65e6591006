"""The guessers' answers on cases small enough to count by hand."""

import pytest

from siqvl.evaluation.benchmarks.baselines import baseline_answers
from siqvl.evaluation.scoring.scorers import scorer

EXACT = scorer("exact_match")


def row(question: str, *answers: str, choices: list[str] | None = None) -> dict:
    return {"question": question, "answers": list(answers), "choices": choices or []}


def test_baselines_learnt_from_training_rows() -> None:
    training = [row("a?", "yes"), row("a?", "yes"), row("a?", "no"), row("b?", "red")]
    # "yes" is the training majority; "b?" is answered "red"; the unseen "c?" falls back to "yes".
    rows = [row("a?", "yes"), row("a?", "no"), row("b?", "red"), row("c?", "yes")]
    assert baseline_answers(rows, iter(training), EXACT) == {
        "majority": [("yes", 1), ("yes", 0), ("yes", 0), ("yes", 1)],
        "question_only": [("yes", 1), ("yes", 0), ("red", 1), ("yes", 1)],
    }


@pytest.mark.parametrize("training", [None, []])
def test_without_training_rows_the_constant_is_the_best_there_is(training) -> None:
    rows = [row("a?", "no"), row("b?", "no"), row("c?", "yes")]
    assert baseline_answers(rows, training, EXACT) == {
        "majority": [("no", 1), ("no", 1), ("no", 0)]
    }


def test_the_best_constant_is_best_for_the_scorer_and_not_only_frequent() -> None:
    # 100 is the most frequent, but too far from 94; 98 is close enough to both
    rows = [*[row("a?", "100")] * 3, *[row("b?", "98")] * 2, row("c?", "94")]
    found = baseline_answers(rows, None, scorer("chartqa"))["majority"]
    assert found == [("98", 1.0)] * 6  # |98 - 94| / 94 = 4.3 %, |100 - 94| / 94 = 6.4 %


def test_annotators_are_one_vote_a_question() -> None:
    training = [
        row("a?", *["cat"] * 6, *["dog"] * 4),
        row("a?", *["dog"] * 10),
        row("b?", *["cat"] * 10),
    ]
    rows = [row("a?", *["cat"] * 7, *["dog"] * 3)]
    found = baseline_answers(rows, training, scorer("vqav2"))
    assert found["majority"] == [("cat", 1.0)]  # right twice in training, `dog` once
    assert found["question_only"] == [("cat", 1.0)]  # a tie of one each: alphabetical


def test_question_only_says_nothing_that_is_no_option() -> None:
    training = [row("a?", "9")] * 3 + [row("a?", "2")] * 2 + [row("b?", "7")] * 5
    rows = [
        row("a?", "2", choices=["1", "2"]),  # `9` was right more often, but is none of these
        row("a?", "1", choices=["1", "7"]),  # neither was right for this question; `7` for another
        row("c?", "1", choices=["1", "3"]),  # nothing is known of these: the constant
    ]
    found = baseline_answers(rows, training, EXACT)
    assert found["majority"] == [("7", 0), ("7", 0), ("7", 0)]
    assert found["question_only"] == [("2", 1), ("7", 0), ("7", 0)]


def test_ties_do_not_depend_on_the_order_of_training_rows() -> None:
    training = [row("a?", "red"), row("a?", "blue")]
    rows = [row("a?", "red")]
    assert baseline_answers(rows, training, EXACT) == baseline_answers(rows, training[::-1], EXACT)


def test_a_random_choice_scores_what_is_expected_of_it() -> None:
    rows = [row("a?", "1", choices=["1", "2"]), row("b?", "x", choices=["x", "y", "z", "w"])]
    for name in ("exact_match", "choice"):
        found = baseline_answers(rows, None, scorer(name))
        assert found["random_choice"] == [("", 1 / 2), ("", 1 / 4)]


def test_a_random_choice_needs_options_to_every_question() -> None:
    rows = [row("a?", "1", choices=["1", "2"]), row("b?", "x")]
    assert "random_choice" not in baseline_answers(rows, None, EXACT)


def test_by_letter_the_constant_may_be_a_place_in_the_list() -> None:
    rows = [
        row("a?", "red", choices=["green", "red"]),
        row("b?", "two", choices=["one", "two"]),
        row("c?", "cat", choices=["cat", "dog"]),
    ]
    expected = [("B", 1.0), ("B", 1.0), ("B", 0.0)]
    assert baseline_answers(rows, None, scorer("choice"))["majority"] == expected
    assert baseline_answers(rows, rows, scorer("choice"))["majority"] == expected


def test_options_that_are_letters_themselves_are_guessed_by_their_place() -> None:
    rows = [row("Which letter?", "A", choices=["B", "A"])]
    found = baseline_answers(rows, None, scorer("choice"))
    assert found["majority"][0][1] == 1.0
    assert found["random_choice"] == [("", 0.5)]
