"""Keys and values of rows in the making, each at its place."""

from __future__ import annotations

import torch

from siqvl.generation.layers import Layers

#: By so many tokens the cache grows.
MORE_TOKENS = 64


class Cache:
    """Room for some rows, as many tokens as the longest that ever was there and a few more.

    Attributes:
        keys: of each layer [rows, key-value heads, tokens, size].
        values: as `keys`.
    """

    def __init__(self, layers: Layers, rows: int, like: torch.Tensor) -> None:
        """Makes room for `rows` rows, of the type and on the device of `like`."""
        empty = like.new_empty(rows, layers.heads, 0, layers.size)
        self.keys = [empty] * layers.number
        self.values = [empty] * layers.number

    def make_room(self, tokens: int) -> None:
        """Lengthens the rows, layer by layer, so that never all of the cache exists twice."""
        width = self.keys[0].shape[2]
        if tokens <= width:
            return
        width = -(-tokens // MORE_TOKENS) * MORE_TOKENS
        for kept in (self.keys, self.values):
            for layer, old in enumerate(kept):
                kept[layer] = old.new_zeros(*old.shape[:2], width, old.shape[3])
                kept[layer][:, :, : old.shape[2]] = old

    def put(
        self,
        layer: int,
        rows: torch.Tensor,
        positions: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """Writes tokens of rows to their positions.

        Args:
            rows: [...], of each token.
            positions: [...], as `rows`.
            keys: [..., key-value heads, size]; `values` too.
        """
        self.keys[layer][rows, :, positions] = keys.to(self.keys[layer].dtype)
        self.values[layer][rows, :, positions] = values.to(self.values[layer].dtype)

    def begin(self, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Writes the first tokens of rows from number `start` on.

        Args:
            keys: [rows, key-value heads, tokens, size]; `values` too.
        """
        rows, _, tokens, _ = keys.shape
        self.keys[layer][start : start + rows, :, :tokens] = keys
        self.values[layer][start : start + rows, :, :tokens] = values

    def copy(self, source: torch.Tensor, target: torch.Tensor, tokens: int) -> None:
        """Copies the first tokens of rows to the places of others."""
        for kept in (*self.keys, *self.values):
            kept[target, :, :tokens] = kept[source, :, :tokens]
