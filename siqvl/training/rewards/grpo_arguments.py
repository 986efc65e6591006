"""A stage's recipe as the arguments of TRL's GRPOTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from siqvl.model.configuration import SiQVLConfig
from siqvl.recipe import Recipe, RewardStage
from siqvl.training.loop.arguments import trainer_arguments


def grpo_arguments(
    stage: RewardStage,
    recipe: Recipe,
    config: SiQVLConfig,
    work_dir: Path,
    steps: int,
    weights: list[float],
) -> dict[str, Any]:
    """Keyword arguments of `GRPOConfig`.

    Args:
        config: of the model.
        steps: optimizer steps of the whole run.
        weights: of the rewards, in their order.

    Raises:
        UserError: as `trainer_arguments`.
    """
    return trainer_arguments(stage, recipe, config, work_dir, steps) | {
        "num_generations": stage.group_size,
        "max_completion_length": stage.max_new_tokens,
        "temperature": stage.sampling_temperature,
        "steps_per_generation": stage.accumulation,  # each optimizer step writes anew
        "loss_type": stage.loss,
        "scale_rewards": stage.scale_rewards,
        "reward_weights": weights,
        "beta": 0.0,  # TRL would load the reference from a folder; the trainer is given one
        "disable_dropout": True,
    }
