"""GQA's accuracy (Hudson & Manning 2019, arXiv:1902.09506): the predicted string is the answer.

Its `eval.py` compares strings as they are (`official: true`), with answers that are all lower case
and without punctuation; predictions are brought to that form here: lower case, no closing full
stop, which is what LLaVA does to them before it hands them to that script.
"""

from __future__ import annotations

from siqvl.evaluation.scoring.scorers.base import Reference, Scorer


def _plain(text: str) -> str:
    return (text.strip().rstrip(".").strip() or text.strip()).lower()


def _judge(prediction: str, reference: Reference) -> float:
    return float(_plain(prediction) in {_plain(answer) for answer in reference.answers})


SCORER = Scorer("gqa", 1, _judge)
OFFICIAL = Scorer(
    "gqa-official", 1, lambda prediction, reference: float(prediction in reference.answers)
)
