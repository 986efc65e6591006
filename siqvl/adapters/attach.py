"""Low-rank adapters on the linear layers of the language model, by PEFT's own layers, in place.

The model stays the class it is: PEFT's layers stand in the places of the linear ones, which they
hold as `base_layer`. The tower never gets any: PEFT's `all-linear` would wake the pooling head of a
SigLIP that has one, as soon as adapters are merged.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from siqvl.adapters.rank import check_rank
from siqvl.errors import UserError
from siqvl.recipe import Adapter
from siqvl.stages import part_of

if TYPE_CHECKING:
    from peft import LoraConfig

    from siqvl.model.modeling import SiQVLForConditionalGeneration

logger = logging.getLogger(__name__)

NAME = "default"  # PEFT's, of the only adapter there is
LAYERS = "model.language_model.layers"  # what adapters are on lies in these


def attach(model: SiQVLForConditionalGeneration, adapter: Adapter, *, seed: int = 0) -> int:
    """Put adapters beside linear layers of the language model, whose own weights are frozen.

    B starts at zero, so that the model computes what it did; A is drawn as PEFT does. Other parts
    learn or do not, as before.

    Args:
        seed: of A; torch's random numbers go on as if nothing had been drawn.

    Returns:
        The number of weights in adapters.

    Raises:
        UserError: the language model has no layer of one of the names in `targets`, or the rank is
            above the width of all of them.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.lora import Linear

    from siqvl.adapters.fused_linear import FusedLinear

    layers = targeted(model, adapter)
    linear = map(model.get_submodule, layers)
    check_rank(adapter.rank, ((one.in_features, one.out_features) for one in linear))  # type: ignore[misc]
    flags = {name: one.requires_grad for name, one in model.named_parameters()}
    with torch.random.fork_rng(devices=[]), _said(model, adapter):
        torch.manual_seed(seed)
        inject_adapter_in_model(lora_config(adapter), model)
    for layer in adapted(model).values():
        if type(layer) is Linear:  # not a layer for weights of 8 or 4 bits
            layer.__class__ = FusedLinear
    for name, parameter in model.named_parameters():  # PEFT freezes all but the adapters
        learns = flags.get(name, False) and part_of(name) != "language_model"
        parameter.requires_grad_(is_adapter(name) or learns)
        if is_adapter(name):  # PEFT's are of the type of the weights beside them
            parameter.data = parameter.data.float()
    count = adapter_weights(model)
    logger.info(
        "adapters of rank %d on %d layers of the language model: %s weights",
        *(adapter.rank, len(layers), f"{count:,}"),
    )
    return count


@contextmanager
def _said(model: SiQVLForConditionalGeneration, adapter: Adapter) -> Iterator[None]:
    """Tells PEFT that layers are quantized by the attribute that it looks for; Trainers, which
    would take the model for one that cannot be trained, do not see it."""
    name = {"int8": "is_loaded_in_8bit", "nf4": "is_loaded_in_4bit"}.get(adapter.quantize)
    if name is not None:
        setattr(model, name, True)
    try:
        yield
    finally:
        if name is not None:
            delattr(model, name)


def lora_config(adapter: Adapter) -> LoraConfig:
    """PEFT's configuration of an adapter."""
    from peft import LoraConfig

    names = "|".join(adapter.layers)
    # an expression: a list of names would also mean the tower's layers, some of which share them
    targets = rf"{re.escape(LAYERS)}\.\d+\.(\w+\.)*({names})"
    return LoraConfig(
        r=adapter.rank,
        # declared an int there, and used as a number: scaling is alpha / rank
        lora_alpha=int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def targeted(model: SiQVLForConditionalGeneration, adapter: Adapter) -> list[str]:
    """Names of the layers that an adapter is for, in the order of the model.

    Raises:
        UserError: there is no layer of one of the names in `targets`.
    """
    names = [name for name, _ in model.named_modules() if name.startswith(f"{LAYERS}.")]
    found = [name for name in names if name.rpartition(".")[2] in adapter.layers]
    if lacking := set(adapter.layers) - {name.rpartition(".")[2] for name in found}:
        raise UserError(
            f"`adapter.targets` has {', '.join(sorted(lacking))}, which the layers of this "
            f"language model ({model.config.text_config.model_type}) have not"
        )
    return found


def adapter_weights(model: torch.nn.Module) -> int:
    """How many weights the adapters of a model have; zero where there are none."""
    return sum(one.numel() for name, one in model.named_parameters() if is_adapter(name))


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name is one of an adapter's."""
    return ".lora_A." in name or ".lora_B." in name


def plain_name(name: str) -> str:
    """The name of a parameter or layer in a model without adapters."""
    return name.replace(".base_layer", "")


def adapted(model: torch.nn.Module) -> dict[str, Any]:
    """The layers that have adapters, by name; none for a model that has none."""
    if not any(is_adapter(name) for name, _ in model.named_parameters()):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: one for name, one in model.named_modules() if isinstance(one, LoraLayer)}


@contextmanager
def without_adapters(model: torch.nn.Module) -> Iterator[None]:
    """Has the language model compute as if it had none; afterwards they are there again."""
    layers = adapted(model).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
