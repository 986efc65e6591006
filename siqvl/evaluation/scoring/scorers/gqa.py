"""GQA's accuracy (Hudson & Manning 2019, arXiv:1902.09506): the predicted string is the answer.

Its `eval.py` compares strings as they are, with answers that are all lower case and without
punctuation; predictions are brought to that form here: lower case, no closing full stop.
"""

from __future__ import annotations

from siqvl.evaluation.scoring.scorers.base import Scorer


def _plain(text: str) -> str:
    return (text.strip().rstrip(".").strip() or text.strip()).lower()


def _judge(prediction: str, answers: list[str], choices: list[str]) -> float:
    return float(_plain(prediction) in {_plain(answer) for answer in answers})


SCORER = Scorer("gqa", 1, _judge)
