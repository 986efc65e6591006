"""Ask a model in training something, with no trace of it in what training comes to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from siqvl.model.modeling import SiQVLForConditionalGeneration


@contextmanager
def undisturbed(model: SiQVLForConditionalGeneration, attention: str) -> Iterator[None]:
    """Makes the model ready to answer; afterwards modes and random numbers are as before.

    Layers that are compiled run as written: answers have shapes and modes of their own, and torch
    gives up compiling after a few of them, for training too.

    Args:
        attention: the kernel to answer with; not every one that trains can.
    """
    modes = [(module, module.training) for module in model.modules()]
    text = model.config.text_config
    trained_with = text._attn_implementation
    states = random.getstate(), np.random.get_state()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.compiler.set_stance("force_eager"):
            model.eval()
            text._attn_implementation = attention
            yield
    finally:
        text._attn_implementation = trained_with
        for module, training in modes:
            module.training = training
        random.setstate(states[0])
        np.random.set_state(states[1])
