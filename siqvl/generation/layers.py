"""The arithmetic of a dense decoder's layers by a model's own weights, with what inference does not
need left out.

transformers' modules make masks for every pass, copy the cache to lengthen it, and compute the last
layer at positions that nobody reads. Here tokens of all rows stand in one dimension, attention is
the caller's, and the last layer computes what is wanted of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from siqvl.model.decoders import decoder_of
from siqvl.model.modeling import SiQVLForConditionalGeneration

#: Takes the layer's number, queries [wanted tokens, heads, size], keys and values [tokens,
#: key-value heads, size]; gives what the queries found, [wanted tokens, heads * size]. Queries are
#: None where nothing is wanted of the layer but its keys and values.
Attend = Callable[[int, torch.Tensor | None, torch.Tensor, torch.Tensor], torch.Tensor | None]


class Layers:
    """The layers of a loaded model."""

    def __init__(self, model: SiQVLForConditionalGeneration) -> None:
        config = model.config.text_config
        self._text = model.model.language_model
        self.number = len(self._text.layers)
        self.heads = config.num_key_value_heads
        self.groups = config.num_attention_heads // config.num_key_value_heads
        decoder = decoder_of(config)
        self.size = decoder.head_size(config)
        attention = [layer.self_attn for layer in self._text.layers]
        # 0: the layer sees all
        self.windows = [getattr(one, "sliding_window", None) or 0 for one in attention]
        self.scaling = [one.scaling for one in attention]
        self._norms = [decoder.norms_of_heads(one) for one in attention]

    def __call__(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        attend: Attend,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Passes tokens through all layers.

        Args:
            hidden: [tokens, hidden], embeddings; written over.
            positions: [tokens], of each in its row.
            wanted: numbers of the tokens whose states are asked for; None: all.

        Returns:
            [wanted, hidden], after the last norm.
        """
        cos, sin = (one[0, :, None] for one in self._text.rotary_emb(hidden, positions[None]))
        for number, layer in enumerate(self._text.layers):
            attention, (query_norm, key_norm) = layer.self_attn, self._norms[number]
            normed = _norm(layer.input_layernorm, hidden)
            key = _rotated(self._of_heads(attention.k_proj(normed), key_norm), cos, sin)
            value = self._of_heads(attention.v_proj(normed))
            if wanted is not None and number == self.number - 1:
                if not len(wanted):
                    attend(number, None, key, value)
                    return hidden[:0]
                hidden, normed = hidden[wanted], normed[wanted]
                cos, sin = cos[wanted], sin[wanted]
            query = _rotated(self._of_heads(attention.q_proj(normed), query_norm), cos, sin)
            hidden += attention.o_proj(attend(number, query, key, value))
            normed, mlp = _norm(layer.post_attention_layernorm, hidden), layer.mlp
            gate = mlp.act_fn(mlp.gate_proj(normed))
            hidden += mlp.down_proj(gate.mul_(mlp.up_proj(normed)))
        return _norm(self._text.norm, hidden)

    def _of_heads(self, projected: torch.Tensor, norm: Any = None) -> torch.Tensor:
        heads = projected.view(len(projected), -1, self.size)
        return heads if norm is None else _norm(norm, heads)


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021) of [tokens, heads, size]."""
    heads, half = heads.to(cos.dtype), heads.shape[-1] // 2
    rotated = heads * cos
    rotated[..., :half].addcmul_(heads[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(heads[..., :half], sin[..., half:])
    return rotated


def _norm(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """RMSNorm over the last dimension in fp32; in one kernel where that is what there is."""
    if hidden.dtype == torch.float32:
        return F.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)
    normed: torch.Tensor = norm(hidden)
    return normed
