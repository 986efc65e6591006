"""One more token of many rows: Qwen2's layers over a KV cache that is made once.

transformers' own step asks for masks, copies the whole cache to add one position, and calls some
sixty modules. Here a row's keys and values stay at its place in the cache, `[rows, heads, tokens,
head]`, each row as long as it is, and a step is the arithmetic alone, by the model's own weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from transformers import DynamicCache

from siqvl.model.modeling import SiQVLForConditionalGeneration


class Decoder:
    """The language model of a loaded checkpoint, and a cache for rows that it writes.

    Rows are numbered from 0 without a gap: one that has ended gives its place to the last.

    Args:
        rows: the cache has room for.
        tokens: of the longest row, its prompt counted in.
    """

    def __init__(self, model: SiQVLForConditionalGeneration, rows: int, tokens: int) -> None:
        config = model.config.text_config
        self._model = model
        self._text = model.model.language_model
        self._groups = config.num_attention_heads // config.num_key_value_heads
        self._heads = config.num_key_value_heads
        self._size = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        self._windows = [
            layer.self_attn.sliding_window or 0 for layer in self._text.layers
        ]  # 0: the layer sees all
        weight = model.lm_head.weight
        shape = (len(self._text.layers), rows, self._heads, tokens, self._size)
        self._keys = weight.new_zeros(shape)
        self._values = weight.new_zeros(shape)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=weight.device)
        self._rows = torch.arange(rows, device=weight.device)
        places = torch.arange(tokens, device=weight.device)
        self._cos, self._sin = self._text.rotary_emb(weight[:0], places[None])
        self._places = places

    def begin(self, prompts: dict[str, torch.Tensor], lengths: torch.Tensor) -> torch.Tensor:
        """Read prompts, one a row.

        Args:
            prompts: the model's arguments; `input_ids` [prompts, tokens] padded on the right, which
                what is causal does not see.
            lengths: [prompts], tokens of each.

        Returns:
            Scores of the first new token, [prompts, vocabulary].
        """
        cache = DynamicCache(config=self._model.config.text_config)
        hidden = self._model.model(**prompts, past_key_values=cache, use_cache=True)[0]
        kept: Any
        for layer, kept in enumerate(cache.layers):
            width = kept.keys.shape[2]
            self._keys[layer, : len(lengths), :, :width] = kept.keys
            self._values[layer, : len(lengths), :, :width] = kept.values
        self.lengths[: len(lengths)] = lengths
        return self._model.lm_head(hidden[self._rows[: len(lengths)], lengths - 1])

    def step(self, tokens: torch.Tensor, longest: int) -> torch.Tensor:
        """Read one more token of each of the first rows, and score what follows.

        Args:
            tokens: [rows].
            longest: tokens of the longest of these rows, this one counted in.

        Returns:
            [rows, vocabulary].
        """
        count = len(tokens)
        at, rows = self.lengths[:count], self._rows[:count]
        cos, sin = self._cos[0, at, None], self._sin[0, at, None]
        unseen = self._places[:longest] > at[:, None]
        hidden = self._text.embed_tokens(tokens)
        for number, layer in enumerate(self._text.layers):
            attention = layer.self_attn
            normed = _norm(layer.input_layernorm, hidden)
            query = attention.q_proj(normed).view(count, -1, self._size)
            key = attention.k_proj(normed).view(count, self._heads, self._size)
            keys, values = self._keys[number], self._values[number]
            keys[rows, :, at] = _rotated(key, cos, sin)
            values[rows, :, at] = attention.v_proj(normed).view(count, self._heads, self._size)
            hidden_from = unseen
            if window := self._windows[number]:
                hidden_from = unseen | (self._places[:longest] <= at[:, None] - window)
            hidden = hidden + attention.o_proj(
                self._attended(
                    _rotated(query, cos, sin),
                    keys[:count, :, :longest],
                    values[:count, :, :longest],
                    hidden_from,
                    attention.scaling,
                )
            )
            hidden = hidden + layer.mlp(_norm(layer.post_attention_layernorm, hidden))
        self.lengths[:count] += 1
        return self._model.lm_head(_norm(self._text.norm, hidden))

    def _attended(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        unseen: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """[rows, hidden] of one query a row; heads of a group share keys and values."""
        rows, _, longest, size = keys.shape
        of_groups = query.view(rows * self._heads, self._groups, size) * scaling
        scores = of_groups @ keys.reshape(rows * self._heads, longest, size).transpose(1, 2)
        scores = scores.view(rows, -1, longest).masked_fill(unseen[:, None], float("-inf"))
        weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
        weights = weights.view(rows * self._heads, self._groups, longest)
        found = weights @ values.reshape(rows * self._heads, longest, size)
        return found.view(rows, -1)

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy rows to the places of others."""
        width = int(self.lengths[source].max())
        for cache in (self._keys, self._values):
            cache[:, target, :, :width] = cache[:, source, :, :width]
        self.lengths[target] = self.lengths[source]


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021) of [rows, heads, head]."""
    one, other = heads.chunk(2, -1)
    return heads * cos + torch.cat((-other, one), -1) * sin


def _norm(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Qwen2's RMSNorm, which computes in fp32; in one kernel where that is what there is."""
    if hidden.dtype == torch.float32:
        return F.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)
    normed: torch.Tensor = norm(hidden)
    return normed
