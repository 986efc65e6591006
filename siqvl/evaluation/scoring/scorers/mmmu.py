"""MMMU's accuracy (Yue et al. 2024, arXiv:2311.16502), by the rules of its `eval_utils.py`.

A question with options is answered by a letter in brackets, else by one between spaces, else, in
more than five words, by the text of an option; of several the last one counts. Where there is none
the script guesses; the score here is what a guess is worth on average.

A question without options is right where a text of its answer is part of what is called the answer
(`is`, `so`, `=` …, else all that is said), or a number in it equals it, both rounded to two digits.
"""

from __future__ import annotations

import re

from siqvl.evaluation.scoring.meant_option import places_right
from siqvl.evaluation.scoring.scorers.base import Reference, Scorer

#: What the text of an answer follows.
LEADS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
NUMBERS = (
    r"-?\b\d{1,3}(?:,\d{3})+\b",
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
)
MARKS = ",.!?;:'"


def place(prediction: str, choices: list[str]) -> int | None:
    """Finds the option that is answered; None where the script guesses."""
    for mark in MARKS:
        prediction = prediction.strip(mark)
    text = f" {prediction} "
    names = [chr(ord("A") + number) for number in range(len(choices))]
    for form in ("({})", " {} "):
        found = {text.rfind(form.format(name)): number for number, name in enumerate(names)}
        if max(found) >= 0:
            return found[max(found)]
    text = text.lower()
    if len(text.split()) > 5:
        # of options that end where others do, the first counts
        ends = [text.rfind(choice.lower()) for choice in choices]
        if max(ends) >= 0:
            return ends.index(max(ends))
    return None


def said(prediction: str) -> set[str | float]:
    """Finds all texts and numbers that an answer in words may be."""
    text = prediction.strip().strip(".").lower()
    # the script also parts sentences before a capital letter, of which lower case leaves none
    lines = text.split("\n")
    found = []
    for line in lines:
        leads = [*LEADS, "="] if line is lines[-1] else LEADS
        tails = [line.split(lead)[-1].strip() for lead in leads if lead in line]
        # the first of equally short ones counts; an empty one is overtaken by any later one
        shortest = ""
        for tail in tails:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in set(MARKS):
            found.append(shortest)
    found = found or [text]
    found += [number for one in found for form in NUMBERS for number in re.findall(form, one)]
    return {value for one in found for value in _normalised(one)}


def _normalised(text: str) -> list[str | float]:
    """A number to two digits, or a text; one letter only beside a space, lest it be in any word."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _judge(prediction: str, reference: Reference) -> float:
    answers, choices = reference.answers, reference.choices
    if choices:
        found = place(prediction, choices)
        if found is None:
            return 1 / len(choices)
        return float(found in places_right(answers, choices))
    right = {value for answer in answers for value in _normalised(answer)}
    texts = [value for value in right if isinstance(value, str)]
    return float(
        any(
            any(text in value for text in texts) if isinstance(value, str) else value in right
            for value in said(prediction)
        )
    )


SCORER = Scorer("mmmu", 1, _judge, chooses=True)
