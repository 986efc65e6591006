"""Parameters by part, each with its learning rate, for the optimizer."""

from __future__ import annotations

from typing import Any

import torch

from siqvl.recipe import SFTStage
from siqvl.stages import part_of


def parameter_groups(model: torch.nn.Module, stage: SFTStage) -> list[dict[str, Any]]:
    """A group for every part that learns, and within it one without weight decay.

    Biases and the gains of norms do not decay, as in Hugging Face's Trainer; all of these have one
    dimension, and nothing else has.

    Returns:
        Groups with `part`, `params`, `lr` and `weight_decay`, none of them empty.
    """
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((part_of(name), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "part": part,
            "params": parameters,
            "lr": stage.learning_rates.get(part, stage.learning_rate),  # type: ignore[call-overload]
            "weight_decay": stage.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


def learning_rates(optimizer: Any) -> dict[str, float]:
    """`learning_rate/<part>` as the schedule has it now."""
    return {f"learning_rate/{group['part']}": group["lr"] for group in optimizer.param_groups}
