"""The recipe: every setting of a pipeline, typed, read from one YAML file.

`schema.py` has the whole, `Recipe`; its sections are in `source.py` (`data`, and the sources of
rows everywhere), `training_stages.py` and `reward_stage.py` (of `stages`), `evaluation.py`
(`evaluation`: benchmarks and gates), `controls.py` (the controls that they name) and `compute.py`
(`compute`). In `reading/`, `document.py` reads a file's text and `load.py` lays it over its base
and explains what is wrong with it. `keys.py` hashes what each result depends on, `grid.py` makes
the recipes of a sweep.
"""

# ruff: noqa: F401  # others import these names from here

from siqvl.recipe.adapter import Adapter
from siqvl.recipe.address import has_password, without_password
from siqvl.recipe.controls import Control, control_of
from siqvl.recipe.evaluation import Benchmark, Blind, Evaluation, Gate, Player, Rival
from siqvl.recipe.reading.load import explain
from siqvl.recipe.reward_stage import Reward, RewardStage
from siqvl.recipe.schema import (
    ChangedCode,
    Distributed,
    Hardware,
    Model,
    Recipe,
    Serving,
    Stages,
    Tracking,
)
from siqvl.recipe.source import (
    ChoicesAre,
    DataPrep,
    LeaveOut,
    MinRatings,
    Present,
    Source,
)
from siqvl.recipe.training_stages import (
    PIPELINE,
    DPOStage,
    Part,
    PreferenceLoss,
    SampledPairs,
    ScorerName,
    SFTStage,
    Stage,
)
