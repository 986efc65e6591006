"""Best-fit packing: rows share sequences under a budget of tokens and one of images.

Best-fit decreasing (Johnson 1973), as Ding et al. 2024 (arXiv:2404.10830) use it for training: from
the longest row down, each goes into the pack where it leaves the fewest tokens free; rows are
never cut. The free space is found in a segment tree over it, so that n rows into packs of L tokens
take O(n (log n + log L)).
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush


def best_fit(
    lengths: Sequence[int], images: Sequence[int], *, max_tokens: int, max_images: int | None = None
) -> list[list[int]]:
    """Packs of positions in `lengths`, each position in exactly one, longest row first.

    Of the packs that a row leaves equally full it takes the one that has room for most images, and
    of these the oldest; rows of equal length are taken in the order given.

    Raises:
        ValueError: a row is over a budget by itself.
    """
    budget = max_images or 0
    if max_images is None:
        images = [0] * len(lengths)  # so that none is ever looked at
    packs: list[list[int]] = []
    free = _FreeSpace(max_tokens)
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        length, pictures = lengths[row], images[row]
        if length > max_tokens or pictures > budget:
            raise ValueError(
                f"a row of {length} tokens and {pictures} images does not fit into packs of "
                f"{max_tokens} tokens and {budget} images"
            )
        found = free.take(length, pictures)
        if found is None:
            packs.append([])
            found = max_tokens, budget, len(packs) - 1
        tokens_left, images_left, pack = found
        packs[pack].append(row)
        free.put(tokens_left - length, images_left - pictures, pack)
    return packs


class _FreeSpace:
    """Open packs by the tokens they have left.

    A segment tree: a leaf for each number of tokens left, with the packs that have exactly so many
    in a heap, most images left first; a node holds the most images left below it, -1 for no pack.
    """

    def __init__(self, max_tokens: int) -> None:
        self._leaves = 1 << max_tokens.bit_length()
        self._most_images = [-1] * (2 * self._leaves)
        self._heaps: dict[int, list[tuple[int, int]]] = {}

    def put(self, tokens: int, images: int, pack: int) -> None:
        heap = self._heaps.setdefault(tokens, [])
        heappush(heap, (-images, pack))
        self._update(tokens, -heap[0][0])

    def take(self, tokens: int, images: int) -> tuple[int, int, int] | None:
        """Remove the tightest pack with room for both: (tokens left, images left, pack)."""
        leaf = self._first(tokens, images)
        if leaf is None:
            return None
        heap = self._heaps[leaf]
        images_left, pack = heappop(heap)
        self._update(leaf, -heap[0][0] if heap else -1)
        return leaf, -images_left, pack

    def _first(self, tokens: int, images: int) -> int | None:
        """The first leaf from `tokens` on that has a pack with room for the images."""
        most = self._most_images
        node = tokens + self._leaves
        while most[node] < images:
            while node & 1:  # a right child: what follows it hangs on an ancestor
                node >>= 1
            if node == 0:  # the whole tree lies before
                return None
            node += 1  # from a left child to its sibling
        while node < self._leaves:
            node *= 2
            if most[node] < images:
                node += 1
        return node - self._leaves

    def _update(self, leaf: int, value: int) -> None:
        most = self._most_images
        node = leaf + self._leaves
        while node and most[node] != value:
            most[node] = value
            value = max(value, most[node ^ 1])
            node >>= 1
