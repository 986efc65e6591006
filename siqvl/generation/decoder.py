"""One more token of many rows: the layers over a KV cache in which every row has its place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from siqvl.generation.beginnings import Encode, Prompt
from siqvl.generation.cache import Cache
from siqvl.generation.layers import Layers
from siqvl.generation.reading import Reader, attended
from siqvl.model.modeling import SiQVLForConditionalGeneration


class Decoder:
    """The language model of a loaded checkpoint, and a cache for rows that it writes.

    Rows are numbered from 0 without a gap: one that has ended gives its place to the last.

    Args:
        rows: the cache has room for.
    """

    def __init__(self, model: SiQVLForConditionalGeneration, rows: int) -> None:
        self._model = model
        self._layers = Layers(model)
        self._cache = Cache(self._layers, rows, model.lm_head.weight)
        self._reader = Reader(model, self._layers)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=model.device)
        self._rows = torch.arange(rows, device=model.device)

    def read(self, prompts: Sequence[Prompt], encode: Encode, start: int) -> torch.Tensor:
        """Reads prompts, into one row each from number `start` on.

        Returns:
            Scores of the first new token, [prompts, vocabulary].
        """
        rows = self._rows[start : start + len(prompts)]
        self.lengths[rows] = torch.tensor(
            [len(prompt.ids) for prompt in prompts], device=rows.device
        )
        return self._model.lm_head(self._reader.ends(prompts, encode, self._cache, rows))

    def step(self, tokens: torch.Tensor, longest: int) -> torch.Tensor:
        """Reads one more token of each of the first rows, and scores what follows.

        Args:
            tokens: [rows].
            longest: tokens of the longest of these rows, this one counted in.

        Returns:
            [rows, vocabulary].
        """
        self._cache.make_room(longest)
        count = len(tokens)
        at, rows = self.lengths[:count], self._rows[:count]
        unseen = torch.arange(longest, device=at.device) > at[:, None]

        def attend(
            layer: int, query: torch.Tensor | None, key: torch.Tensor, value: torch.Tensor
        ) -> torch.Tensor:
            assert query is not None
            self._cache.put(layer, rows, at, key, value)
            keys = self._cache.keys[layer][:count, :, :longest]
            values = self._cache.values[layer][:count, :, :longest]
            return attended(self._layers, layer, query, keys, values, unseen, at)

        hidden = self._model.get_input_embeddings()(tokens)
        hidden = self._layers(hidden, at, attend)
        self.lengths[:count] += 1
        return self._model.lm_head(hidden)

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copies rows to the places of others."""
        self._cache.copy(source, target, int(self.lengths[source].max()))
        self.lengths[target] = self.lengths[source]
