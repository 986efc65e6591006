"""The answer normalisation of VQA: to be filled in from vqaEval.py."""

from __future__ import annotations


def normalise(answer: str) -> str:
    """The form in which two answers are compared."""
    return " ".join(answer.lower().split())
