"""How answers are scored: one published metric a file."""

from __future__ import annotations

from siqvl.evaluation.scoring.scorers import anls, chartqa, choice, exact_match, gqa, vqav2
from siqvl.evaluation.scoring.scorers.base import Scorer
from siqvl.recipe import ScorerName

_SCORERS: dict[str, Scorer] = {
    module.SCORER.name: module.SCORER for module in (anls, chartqa, choice, exact_match, gqa, vqav2)
}


def scorer(name: ScorerName) -> Scorer:
    """Finds the scorer that a recipe names."""
    return _SCORERS[name]
