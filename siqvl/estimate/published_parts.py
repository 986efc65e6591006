"""The configs of published parts, for an estimate without the hub.

From `config.json` of each repository on the hub. Only what decides shapes is here. SigLIP and
SigLIP 2 of fixed resolution say their patches and pictures in their names.
"""

from __future__ import annotations

import re
from typing import Any

#: hidden_size, intermediate_size, layers, heads, heads of keys and values, tied, vocabulary.
_QWEN25 = {
    "0.5B": (896, 4_864, 24, 14, 2, True, 151_936),
    "1.5B": (1_536, 8_960, 28, 12, 2, True, 151_936),
    "3B": (2_048, 11_008, 36, 16, 2, True, 151_936),
    "7B": (3_584, 18_944, 28, 28, 4, False, 152_064),
}
_QWEN3 = {
    "0.6B": (1_024, 3_072, 28, 16, 8, True, 151_936),
    "1.7B": (2_048, 6_144, 28, 16, 8, True, 151_936),
    "4B": (2_560, 9_728, 36, 32, 8, True, 151_936),
    "8B": (4_096, 12_288, 36, 32, 8, False, 151_936),
}
#: hidden_size, intermediate_size, layers, heads.
_SIGLIP = {
    "base": (768, 3_072, 12, 12),
    "large": (1_024, 4_096, 24, 16),
    "so400m": (1_152, 4_304, 27, 16),
    "giant-opt": (1_536, 6_144, 40, 16),
}
_SIGLIP_NAME = re.compile(r"google/siglip2?-(base|large|so400m|giant-opt)-patch(14|16|32)-(\d+)")
_QWEN_NAME = re.compile(r"Qwen/Qwen(2\.5|3)-([\d.]+B)(-Instruct)?")


def published_vision(name: str) -> dict[str, Any] | None:
    """The config of a tower, as keyword arguments of `AutoConfig.for_model`; None: not known."""
    match = _SIGLIP_NAME.fullmatch(name)
    if match is None:
        return None
    hidden, inner, layers, heads = _SIGLIP[match[1]]
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "patch_size": int(match[2]),
        "image_size": int(match[3]),
    }


def published_language(name: str) -> dict[str, Any] | None:
    """The config of a language model, likewise."""
    match = _QWEN_NAME.fullmatch(name)
    family = _QWEN25 if match and match[1] == "2.5" else _QWEN3
    if match is None or match[2] not in family:
        return None
    hidden, inner, layers, heads, keys, tied, vocabulary = family[match[2]]
    found = {
        "model_type": "qwen2" if family is _QWEN25 else "qwen3",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "tie_word_embeddings": tied,
        "vocab_size": vocabulary,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
    }
    return found if family is _QWEN25 else found | {"head_dim": 128}
