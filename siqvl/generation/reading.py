"""Prompts on their way through the layers: each beginning that several share is read once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from siqvl.data.collate import padded
from siqvl.generation.beginnings import Encode, Prompt, beginnings
from siqvl.generation.cache import Cache
from siqvl.generation.layers import Layers
from siqvl.model.modeling import SiQVLForConditionalGeneration


class Reader:
    """Reads prompts with a loaded model, without its head."""

    def __init__(self, model: SiQVLForConditionalGeneration, layers: Layers | None = None) -> None:
        self._model = model
        self._layers = layers or Layers(model)

    def ends(
        self, prompts: Sequence[Prompt], encode: Encode, cache: Cache, rows: torch.Tensor
    ) -> torch.Tensor:
        """Gives the states of the prompts' last tokens, [prompts, hidden].

        Args:
            cache: takes up all keys and values.
            rows: [prompts], of the cache, ascending without a gap.
        """
        cache.make_room(max(len(prompt.ids) for prompt in prompts))
        starts = self._shared(prompts, encode, cache, rows)
        return self._read_on(prompts, encode, starts, cache, rows, ends=True)

    def states(self, prompts: Sequence[Prompt], encode: Encode) -> tuple[torch.Tensor, list[int]]:
        """Gives the states of every prompt's tokens but for the beginning that it shares.

        Returns:
            [prompts, tokens, hidden], padded on the right, and how many tokens of each prompt come
            before the first.
        """
        like = self._model.lm_head.weight
        rows = torch.arange(len(prompts), device=like.device)
        cache = Cache(self._layers, len(prompts), like)
        starts = self._shared(prompts, encode, cache, rows)
        hidden = self._read_on(prompts, encode, starts, cache, rows, ends=False)
        return hidden.view(len(prompts), -1, hidden.shape[-1]), starts

    def _shared(
        self, prompts: Sequence[Prompt], encode: Encode, cache: Cache, rows: torch.Tensor
    ) -> list[int]:
        """Reads shared beginnings into the cache, if that saves enough; tokens read of each."""
        first, owners = beginnings(prompts)
        if not first:
            return [0] * len(prompts)
        begun = [Prompt(one.ids[: one.shared], one.pictures) for one in first]
        longest = max(len(one.ids) for one in begun)
        cache.make_room(max(len(prompt.ids) for prompt in prompts))
        self._read_on(begun, encode, [0] * len(begun), cache, rows[: len(begun)], ends=None)
        # beginnings stand in the first rows, and every row's owner before it or in it
        cache.copy(rows[torch.tensor(owners, device=rows.device)], rows, longest)
        return [prompt.shared for prompt in prompts]

    def _read_on(
        self,
        prompts: Sequence[Prompt],
        encode: Encode,
        starts: Sequence[int],
        cache: Cache,
        rows: torch.Tensor,
        *,
        ends: bool | None,
    ) -> torch.Tensor:
        """Reads tokens after `starts`; states of all of them, of the last ones, or (None) of none.

        Rows are padded on the right, where a causal model does not see it.
        """
        own = [prompt.ids[start:] for prompt, start in zip(prompts, starts, strict=True)]
        ids = padded(own, int(self._model.config.image_token_id == 0)).to(rows.device)
        count, width = ids.shape
        before = torch.tensor(starts, device=rows.device)
        positions = before[:, None] + torch.arange(width, device=rows.device)
        last = torch.tensor([len(one) - 1 for one in own], device=rows.device)
        fresh = not any(starts)
        wanted, asked = None, positions
        if ends is not None and ends:
            wanted, asked = torch.arange(count, device=rows.device) * width + last, before + last
        elif ends is None:
            wanted = last[:0]
        start, longest = int(rows[0]), int(positions.max()) + 1
        cache.make_room(longest)
        of_rows = rows[:, None].expand(-1, width)

        def attend(
            layer: int, query: torch.Tensor | None, key: torch.Tensor, value: torch.Tensor
        ) -> torch.Tensor | None:
            key, value = (one.view(count, width, *one.shape[1:]) for one in (key, value))
            if fresh:
                keys, values = key.transpose(1, 2), value.transpose(1, 2)
                cache.begin(layer, start, keys, values)
            else:
                cache.put(layer, of_rows, positions, key, value)
                keys = cache.keys[layer][start : start + count, :, :longest]
                values = cache.values[layer][start : start + count, :, :longest]
            if query is None:
                return None
            if len(query) == count:
                unseen = torch.arange(keys.shape[2], device=rows.device) > asked.view(count, 1)
                return attended(self._layers, layer, query, keys, values, unseen, asked.view(-1))
            return self._causal(layer, query, keys, values, positions, fresh=fresh)

        hidden = self._embedded(ids, prompts if fresh else [], encode)
        return self._layers(hidden, positions.view(-1), attend, wanted)

    def _causal(
        self,
        layer: int,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        positions: torch.Tensor,
        *,
        fresh: bool,
    ) -> torch.Tensor:
        """What every token of [prompts, tokens] finds in its row up to itself."""
        count, width = positions.shape
        queries = query.view(count, width, -1, self._layers.size).transpose(1, 2)
        window, seen = self._layers.windows[layer], None
        if window or not fresh:
            places = torch.arange(keys.shape[2], device=keys.device)
            seen = places <= positions[..., None]
            if window:
                seen &= places > positions[..., None] - window
            seen = seen[:, None]
        found = F.scaled_dot_product_attention(
            queries,
            keys.to(queries.dtype),
            values.to(queries.dtype),
            attn_mask=seen,
            is_causal=seen is None,
            scale=self._layers.scaling[layer],
            enable_gqa=True,
        )
        return found.transpose(1, 2).reshape(count * width, -1)

    def _embedded(
        self, ids: torch.Tensor, prompts: Sequence[Prompt], encode: Encode
    ) -> torch.Tensor:
        """[tokens, hidden], image tokens among them.

        Raises:
            ValueError: there are more or fewer placeholders than image tokens.
        """
        hidden = self._model.get_input_embeddings()(ids)
        names = [name for prompt in prompts for name in prompt.pictures]
        images = encode(names).flatten(0, 1).to(hidden) if names else None
        mask = self._model.model.get_placeholder_mask(ids, hidden, images)
        if images is not None:
            hidden = hidden.masked_scatter(mask, images)
        return hidden.flatten(0, 1)


def attended(
    layers: Layers,
    layer: int,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    unseen: torch.Tensor,
    at: torch.Tensor,
) -> torch.Tensor:
    """What one query a row finds; heads of a group share keys and values.

    Args:
        query: [rows, heads, size].
        keys: [rows, key-value heads, tokens, size]; `values` too.
        unseen: [rows, tokens], which a row has not.
        at: [rows], positions of the queries.

    Returns:
        [rows, heads * size].
    """
    rows, _, longest, size = keys.shape
    if window := layers.windows[layer]:
        places = torch.arange(longest, device=keys.device)
        unseen = unseen | (places <= at[:, None] - window)
    grouped = query.view(rows * layers.heads, layers.groups, size) * layers.scaling[layer]
    scores = grouped @ keys.reshape(rows * layers.heads, longest, size).transpose(1, 2)
    scores = scores.view(rows, -1, longest).masked_fill(unseen[:, None], float("-inf"))
    weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
    weights = weights.view(rows * layers.heads, layers.groups, longest)
    found = weights @ values.reshape(rows * layers.heads, longest, size)
    return found.view(rows, -1)
