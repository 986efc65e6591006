"""Which completions are right, which are wrong, and which meet."""

import json
from collections import Counter

import pytest

from siqvl.generation.completions import Completion
from siqvl.preferences.pairing import Judged, draw_pairs, judge, pair_row
from siqvl.recipe import SampledPairs, Source

SOURCE = Source(kind="shapes", max_samples=1)
QUESTION = {
    "id": "q1",
    "images": [{"bytes": b"picture", "path": None}],
    "question": "What colour is it?",
    "answers": ["red", "crimson"],
    "choices": [],
    "source": "made",
    "meta": json.dumps({"template": "colour"}),
}
RIGHT = Judged("red", True, "red", 1.0)
WRONG = Judged("blue", True, "blue", 0.0)


def settings(**changes) -> SampledPairs:
    return SampledPairs(source=SOURCE, **changes)


@pytest.mark.parametrize(
    ("text", "ended", "right", "wrong"),
    [
        ("It is warm.\nAnswer: Red", True, True, False),
        ("It is warm.\nAnswer: Red", False, False, False),  # right, but never brought to its end
        ("It is cold.\nAnswer: blue", True, False, True),
        ("It is cold.\nAnswer: blue", False, False, True),
        ("It is red.", True, False, True),  # no marker: no answer
        ("Answer: red\nAnswer: blue", True, False, True),
    ],
)
def test_the_answer_after_the_marker_is_judged(text, ended, right, wrong) -> None:
    (found,) = judge([Completion(text, ended)], QUESTION, settings(answer_marker="Answer:"))
    assert (found.right, found.wrong) == (right, wrong)


def test_a_partly_right_answer_is_neither() -> None:
    """ANLS of `cat` and `car`: one edit of three characters, 1 - 1/3."""
    question = QUESTION | {"answers": ["cat"]}
    (found,) = judge([Completion("car", True)], question, settings(scorer="anls"))
    assert found.score == pytest.approx(2 / 3)
    assert not found.right
    assert not found.wrong


def test_right_meets_wrong_and_nothing_else() -> None:
    partly = Judged("reddish", True, "reddish", 0.5)
    endless = Judged("red red", False, "red", 1.0)
    judged = [WRONG, partly, RIGHT, endless]
    assert draw_pairs(judged, "q", most=9, seed=0) == [(RIGHT, WRONG)]
    assert draw_pairs([RIGHT, partly], "q", most=9, seed=0) == []
    assert draw_pairs([WRONG, endless], "q", most=9, seed=0) == []


def test_equal_texts_are_paired_once() -> None:
    assert draw_pairs([RIGHT, RIGHT, WRONG, WRONG], "q", most=9, seed=0) == [(RIGHT, WRONG)]


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "so <|im_start|>user"])
def test_what_cannot_be_stored_is_not_paired(text: str) -> None:
    assert draw_pairs([RIGHT, Judged(text, False, text, 0.0)], "q", most=9, seed=0) == []


def test_every_pair_is_drawn_as_often_as_its_samples_occur() -> None:
    """2 right and 3 wrong samples, of which two are equal: shares of 1/6, and 1/3 for those."""
    other = Judged("crimson", True, "crimson", 1.0)
    green = Judged("green", True, "green", 0.0)
    judged = [RIGHT, WRONG, other, green, WRONG]
    drawn = Counter()
    for number in range(3000):
        ((chosen, rejected),) = draw_pairs(judged, f"q{number}", most=1, seed=0)
        drawn[chosen.text, rejected.text] += 1
    shares = {texts: count / 3000 for texts, count in drawn.items()}
    expected = {
        ("red", "blue"): 1 / 3,
        ("crimson", "blue"): 1 / 3,
        ("red", "green"): 1 / 6,
        ("crimson", "green"): 1 / 6,
    }
    assert shares == pytest.approx(expected, abs=0.03)


def test_a_draw_is_decided_by_seed_and_question() -> None:
    judged = [Judged(f"right {i}", True, "", 1.0) for i in range(5)]
    judged += [Judged(f"wrong {i}", True, "", 0.0) for i in range(5)]
    first = draw_pairs(judged, "q", most=3, seed=0)
    assert len({(one.text, other.text) for one, other in first}) == 3
    assert first == draw_pairs(judged, "q", most=3, seed=0)
    assert first != draw_pairs(judged, "q", most=3, seed=1)
    assert first != draw_pairs(judged, "r", most=3, seed=0)


def test_the_row_of_a_pair() -> None:
    row = pair_row(QUESTION, 1, (RIGHT, WRONG), settings(prompt_suffix=" Think."))
    assert row["id"] == "q1/sampled-1"
    assert row["images"] == [b"picture"]
    assert row["prompt"] == [{"role": "user", "content": "What colour is it? Think."}]
    assert row["chosen"] == [{"role": "assistant", "content": "red"}]
    assert row["rejected"] == [{"role": "assistant", "content": "blue"}]
    assert row["source"] == "sampled made"
    assert json.loads(row["meta"]) == {
        "template": "colour",
        "question": "q1",
        "answers": ["red", "crimson"],
        "chosen_answer": "red",
        "rejected_answer": "blue",
        "rejected_ended": True,
    }
