"""Floors on cases small enough to count by hand."""

from siqvl.evaluation.floors import floors


def row(question: str, answer: str, choices: list[str] | None = None) -> dict:
    return {"question": question, "answers": [answer], "choices": choices or []}


def test_floors_learnt_from_training_rows() -> None:
    training = [row("a?", "yes"), row("a?", "yes"), row("a?", "no"), row("b?", "red")]
    # "yes" is the training majority; "b?" is answered "red"; the unseen "c?" falls back to "yes".
    rows = [row("a?", "yes"), row("a?", "no"), row("b?", "red"), row("c?", "yes")]
    found = floors(rows, training)
    assert found.majority == 2 / 4
    assert found.question_only == 3 / 4
    assert found.random_choice is None


def test_without_training_rows_the_constant_is_the_best_there_is() -> None:
    rows = [row("a?", "no"), row("b?", "no"), row("c?", "yes")]
    found = floors(rows, None)
    assert found.majority == 2 / 3
    assert found.question_only is None


def test_random_choice_averages_over_questions() -> None:
    rows = [row("a?", "1", ["1", "2"]), row("b?", "x", ["x", "y", "z", "w"])]
    assert floors(rows, None).random_choice == (1 / 2 + 1 / 4) / 2
