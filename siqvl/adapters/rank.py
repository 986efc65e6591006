"""Which rank an adapter may have."""

from __future__ import annotations

from collections.abc import Iterable

from siqvl.errors import UserError


def check_rank(rank: int, sizes: Iterable[tuple[int, int]], key: str = "`adapter.rank`") -> None:
    """Judges a rank before matrices of it are made.

    B A has at most the rank of the layer it is added to, which is no more than the layer has inputs
    or outputs. One rank is for all layers, so that the widest of them is what counts.

    Args:
        sizes: inputs and outputs of the layers that the adapter is for.
        key: what the recipe calls it.

    Raises:
        UserError: the rank is above the width of every layer.
    """
    widest = max((min(size) for size in sizes), default=rank)
    if rank > widest:
        raise UserError(
            f"{key} is {rank}, but the widest layer it is for has {widest} inputs or outputs, and "
            f"no more can be learned than by a rank of {widest}: lower it"
        )
