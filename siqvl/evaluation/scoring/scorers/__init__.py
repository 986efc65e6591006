"""How answers are scored: one published metric a file."""

from __future__ import annotations

from siqvl.evaluation.scoring.scorers import (
    anls,
    chartqa,
    choice,
    exact_match,
    gqa,
    mathvista,
    mme,
    mmmu,
    ocrbench,
    pope,
    scienceqa,
    vqav2,
)
from siqvl.evaluation.scoring.scorers.base import Scorer
from siqvl.recipe import ScorerName

_SCORERS: dict[str, Scorer] = {
    found.name: found
    for found in (
        *(anls.SCORER, chartqa.SCORER, choice.SCORER, exact_match.SCORER, gqa.SCORER),
        *(mathvista.SCORER, mme.SCORER, mmmu.SCORER, ocrbench.SCORER, pope.SCORER),
        *(scienceqa.SCORER, vqav2.SCORER, vqav2.TEXTVQA),
        *(anls.OFFICIAL, gqa.OFFICIAL, vqav2.OFFICIAL),
    )
}


def scorer(name: ScorerName, *, official: bool = False) -> Scorer:
    """Finds the scorer that a recipe names, or the official script's rule where ours departs."""
    return _SCORERS[f"{name}-official" if official else name]
