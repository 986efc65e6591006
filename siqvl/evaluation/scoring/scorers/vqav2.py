"""VQAv2's soft accuracy (Antol et al. 2015, arXiv:1505.00468; Goyal et al. 2017).

An answer that at least three annotators gave is right, `min(n / 3, 1)`; so that it can be compared
with a human's, this is averaged over the ten ways to leave one annotator out
(visualqa.org/evaluation).

`textvqa` is the same over another normalisation, that of the evaluator which TextVQA's authors
published (`TextVQAAccuracyEvaluator` of MMF, which LLaVA uses, too): before VQA's it drops commas
and question marks, and parts `'s` from its word.
"""

from __future__ import annotations

from siqvl.evaluation.scoring.scorers.base import Reference, Scorer
from siqvl.evaluation.scoring.scorers.vqa_answer import normalise, on_one_line

ANNOTATORS = 10
AGREEING = 3


def soft_accuracy(prediction: str, answers: list[str]) -> float:
    """Computes the leave-one-out accuracy of a prediction.

    Args:
        answers: one of every annotator. Where some are missing they count as annotators who said
            something else, so that fewer than three agreeing ones cannot make an answer right.
    """
    return _agreement(normalise(prediction), [normalise(answer) for answer in answers])


def _agreement(given: str, answers: list[str]) -> float:
    """The leave-one-out accuracy of texts that are compared as they are."""
    agree = answers.count(given)
    everyone = max(len(answers), ANNOTATORS)
    # the annotator who is left out agreed `agree` times, and disagreed the other times
    total = agree * min((agree - 1) / AGREEING, 1.0) + (everyone - agree) * min(
        agree / AGREEING, 1.0
    )
    return total / everyone


def _official(prediction: str, reference: Reference) -> float:
    """`vqaEval.py` normalises only where annotators differ."""
    given, *answers = map(on_one_line, (prediction, *reference.answers))
    differ = len(set(answers)) > 1
    return soft_accuracy(given, answers) if differ else _agreement(given, answers)


def _textvqa(prediction: str, reference: Reference) -> float:
    given, *answers = map(_without_commas, (prediction, *reference.answers))
    return soft_accuracy(given, answers)


def _without_commas(answer: str) -> str:
    return answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


SCORER = Scorer("vqav2", 1, lambda given, reference: soft_accuracy(given, reference.answers))
OFFICIAL = Scorer("vqav2-official", 1, _official)
TEXTVQA = Scorer("textvqa", 1, _textvqa)
