"""Moved to `siqvl.evaluation.scorers`, `.extract` and `.bootstrap`."""

from __future__ import annotations

from siqvl.evaluation.bootstrap import bootstrap_interval
from siqvl.evaluation.extract import extract_answer
from siqvl.evaluation.scorers.exact_match import SCORER as _SCORER
from siqvl.evaluation.scorers.exact_match import exact_match, normalise

SCORER = _SCORER.label

__all__ = ["SCORER", "bootstrap_interval", "exact_match", "extract_answer", "normalise"]
