"""A running mean of the weights that learn (Polyak and Juditsky 1992), saved in place of the last.

mean = decay * mean + (1 - decay) * weight after every optimizer step. The decay begins small and
grows to the recipe's, min(decay, (1 + step) / (10 + step)), so that the first weights are forgotten
(as in TensorFlow's ExponentialMovingAverage with `num_updates`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerState

FILE = "ema.safetensors"


class WeightMean(TrainerCallback):
    """Follows the weights of `model` that learn; in float32, on their devices.

    Every process of DDP computes the same mean. Sharded weights are not supported.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad
        }
        self._means: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Start at the weights as they are; what a resumed run has read is kept."""
        for name, weight in self._weights.items():
            mean = self._means.get(name, weight.detach().float().clone())
            self._means[name] = mean.to(weight.device)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        self.update(min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """One step of the mean."""
        for name, weight in self._weights.items():
            self._means[name].lerp_(weight.float(), 1 - decay)

    @torch.no_grad()
    def to_model(self) -> None:
        """Give the model the mean in place of its weights."""
        for name, weight in self._weights.items():
            weight.copy_(self._means[name])

    def write(self, folder: Path) -> None:
        """Keep the mean beside the other files of a state that a run continues from."""
        save_file({name: mean.cpu() for name, mean in self._means.items()}, folder / FILE)

    def read(self, folder: Path) -> None:
        """Continue from what `write` left there."""
        self._means = load_file(folder / FILE)
