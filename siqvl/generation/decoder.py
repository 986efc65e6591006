"""One more token of many rows: Qwen2's layers over a KV cache that is made once.

transformers' own step asks for masks, copies the whole cache to add one position, and calls some
sixty modules. Here a row's keys and values stay at its place in the cache, `[rows, heads, tokens,
head]`, each row as long as it is, and a step is the arithmetic alone, by the model's own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from siqvl.generation.prompts import Encode, Prompt, read
from siqvl.model.modeling import SiQVLForConditionalGeneration

#: By so many tokens the cache grows.
MORE_TOKENS = 64


class Decoder:
    """The language model of a loaded checkpoint, and a cache for rows that it writes.

    Rows are numbered from 0 without a gap: one that has ended gives its place to the last. The
    cache has room for as many tokens as the longest row that ever was there, and a few more.

    Args:
        rows: the cache has room for.
    """

    def __init__(self, model: SiQVLForConditionalGeneration, rows: int) -> None:
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
        empty = weight.new_empty(rows, self._heads, 0, self._size)
        self._keys = [empty] * len(self._text.layers)
        self._values = [empty] * len(self._text.layers)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=weight.device)
        self._rows = torch.arange(rows, device=weight.device)
        self._make_room(0)

    def read(self, prompts: Sequence[Prompt], encode: Encode, start: int) -> torch.Tensor:
        """Reads prompts, into one row each from number `start` on.

        Returns:
            Scores of the first new token, [prompts, vocabulary].
        """
        count = len(prompts)
        lengths = [len(prompt.ids) for prompt in prompts]
        found = read(self._model, prompts, encode)
        assert found.cache is not None
        width = max(lengths)
        self._make_room(width)
        kept: Any
        for layer, kept in enumerate(found.cache.layers):
            for cache, tokens in ((self._keys, kept.keys), (self._values, kept.values)):
                if found.columns is not None:
                    at = found.columns[:, None, :, None].expand(-1, self._heads, -1, self._size)
                    tokens = tokens.gather(2, at)
                cache[layer][start : start + count, :, :width] = tokens
        self.lengths[start : start + count] = torch.tensor(lengths)
        ends = self.lengths[start : start + count] - found.starts - 1
        return self._model.lm_head(found.hidden[self._rows[:count], ends])

    def _make_room(self, tokens: int) -> None:
        """Lengthens the rows of the cache, layer by layer, so that never all of it exists twice."""
        width = self._keys[0].shape[2]
        if tokens <= width and width:
            return
        width = -(-max(tokens, 1) // MORE_TOKENS) * MORE_TOKENS
        for cache in (self._keys, self._values):
            for layer, old in enumerate(cache):
                cache[layer] = old.new_zeros(*old.shape[:2], width, self._size)
                cache[layer][:, :, : old.shape[2]] = old
        self._places = torch.arange(width, device=self.lengths.device)
        self._cos, self._sin = self._text.rotary_emb(
            self._model.lm_head.weight[:0], self._places[None]
        )

    def step(self, tokens: torch.Tensor, longest: int) -> torch.Tensor:
        """Read one more token of each of the first rows, and score what follows.

        Args:
            tokens: [rows].
            longest: tokens of the longest of these rows, this one counted in.

        Returns:
            [rows, vocabulary].
        """
        self._make_room(longest)
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
        for cache in (*self._keys, *self._values):
            cache[target, :, :width] = cache[source, :, :width]
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
