"""Exact match after light normalisation, against any accepted answer."""

from __future__ import annotations

from siqvl.evaluation.scoring.scorers.base import Reference, Scorer


def normalise(answer: str) -> str:
    """Makes case lower and spaces single, and drops surrounding quotes and a closing full stop.

    Of what is nothing else (`...`, `"`) they are kept: it is an answer, and not none.
    """
    spaced = " ".join(answer.lower().split())
    return spaced.strip("\"'`").rstrip(".").strip() or spaced


def exact_match(prediction: str, answers: list[str]) -> bool:
    """Tells whether the prediction is one of the accepted answers, after normalisation."""
    return normalise(prediction) in {normalise(answer) for answer in answers}


def _judge(prediction: str, reference: Reference) -> float:
    return float(exact_match(prediction, reference.answers))


SCORER = Scorer("exact_match", 1, _judge)
