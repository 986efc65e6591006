"""What can be told about sampled pairs before a checkpoint is there."""

from __future__ import annotations

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import Recipe


def check_sampled(recipe: Recipe) -> None:
    """Judge the questions that pairs are sampled about.

    Raises:
        UserError: their source is not as described, or a benchmark consists of pairs of which the
            recipe does not say how they are sampled.
    """
    sampled = recipe.stages.dpo.sampled
    for benchmark in recipe.evaluation.benchmarks:
        if not benchmark.sampled:
            continue
        if sampled is None:
            raise UserError(
                f"benchmark `{benchmark.name}` consists of sampled pairs, but `stages.dpo.sampled` "
                "does not say how they are sampled; fill that section in, or remove the benchmark"
            )
        sources.check(benchmark.source, RowKind.EVALUATION)
    if sampled is not None:
        sources.check(sampled.source, RowKind.EVALUATION)
