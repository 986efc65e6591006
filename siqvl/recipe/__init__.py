"""The recipe: every figure of a pipeline, typed. `schema.py` holds the whole."""

from siqvl.recipe.evaluation import Benchmark, Blind, Evaluation, Gate, Player, Rival
from siqvl.recipe.load import explain
from siqvl.recipe.schema import (
    Distributed,
    Hardware,
    Model,
    Recipe,
    Serving,
    Tracking,
    has_password,
)
from siqvl.recipe.source import DataPrep, LeaveOut, MinRatings, Source
from siqvl.recipe.training_stages import (
    DPOStage,
    Part,
    PreferenceLoss,
    SampledPairs,
    ScorerName,
    SFTStage,
    Stage,
    Stages,
)

__all__ = [
    "Benchmark",
    "Blind",
    "DPOStage",
    "DataPrep",
    "Distributed",
    "Evaluation",
    "Gate",
    "Hardware",
    "LeaveOut",
    "MinRatings",
    "Model",
    "Part",
    "Player",
    "PreferenceLoss",
    "Recipe",
    "Rival",
    "SFTStage",
    "SampledPairs",
    "ScorerName",
    "Serving",
    "Source",
    "Stage",
    "Stages",
    "Tracking",
    "explain",
    "has_password",
]
