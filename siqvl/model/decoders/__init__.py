"""The decoders that can be a SiQ-VL's language model: a file each, listed here.

Another dense decoder is another file with a `DenseDecoder` that says what is special about it, and
its name in `DECODERS`. `siqvl/model/modeling.py` builds whatever transformers has for the text
configuration, so checkpoints carry no list of families with them.
"""

from __future__ import annotations

from transformers import PreTrainedConfig

from .dense_decoder import DenseDecoder
from .qwen2 import QWEN2
from .qwen3 import QWEN3

DECODERS: dict[str, DenseDecoder] = {one.model_type: one for one in (QWEN2, QWEN3)}


def decoder_of(config: PreTrainedConfig) -> DenseDecoder:
    """The family of a language model's configuration.

    Raises:
        ValueError: it is of none that is supported; the message names those that are.
    """
    if found := DECODERS.get(config.model_type):
        return found
    raise ValueError(
        f"the language model has model_type '{config.model_type}'; supported are {supported()}."
    )


def supported() -> str:
    """The families in words, for messages: `Qwen2/Qwen2.5 ('qwen2') and …`."""
    return " and ".join(f"{one.name} ('{one.model_type}')" for one in DECODERS.values())


__all__ = ["DECODERS", "QWEN2", "QWEN3", "DenseDecoder", "decoder_of", "supported"]
