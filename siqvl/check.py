"""Judge a whole recipe before anything starts: every source, benchmark and model part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.sources.reading.tabular import HUB_ID
from siqvl.errors import Unreachable, UserError, one_line
from siqvl.evaluation.benchmarks.prepare_benchmarks import check_benchmark
from siqvl.recipe import Model, Recipe, Stage
from siqvl.recipe.reading.shipped import shipped
from siqvl.stages import STAGES


def check_recipe(recipe: Recipe, *, families: bool = True) -> None:
    """Judges everything that can be told without loading weights or rows.

    Args:
        families: whether to look at the families of model parts that are folders here, for which
            transformers is imported; the first stage looks at them, too.

    Raises:
        UserError: one sentence about the first thing that is missing or contradictory.
    """
    for check in _checks(recipe, families=families):
        check()


@dataclass(frozen=True)
class Judgement:
    """What there is to say of a recipe before anything starts.

    Attributes:
        problems: a sentence for each thing that `check_recipe` would refuse it for.
        unchecked: what nobody could look at: weights on the hub, and data sets on a hub that does
            not answer.
    """

    problems: list[str]
    unchecked: list[str]


def judge(recipe: Recipe) -> Judgement:
    """Returns all that is wrong with a recipe, where `check_recipe` stops at the first."""
    model = (("vision", recipe.model.vision), ("language", recipe.model.language))
    found: dict[str, None] = {}  # in their order; what several checks say is said once
    left = {
        f"model.{key}: {name} is on the hub, and not fetched for this": None
        for key, name in model
        if HUB_ID.fullmatch(name) and not shipped(name).exists()
    }
    for check in _checks(recipe):
        try:
            check()
        except Unreachable as error:
            left[error.message] = None
        except UserError as error:
            found[error.message] = None
    return Judgement(list(found), list(left))


def _checks(recipe: Recipe, *, families: bool = True) -> Iterator[Callable[[], None]]:
    """All checks of a recipe, one after the other."""
    yield partial(_check_weights, "vision", recipe.model, families=families)
    yield partial(_check_weights, "language", recipe.model, families=families)
    if families:
        yield partial(check_ranks, recipe)
    for stage in recipe.trained:
        for source in recipe.stage(stage).sources:
            yield partial(sources.check, source, STAGES[stage].rows)
    for benchmark in recipe.evaluation.benchmarks:
        yield partial(check_benchmark, benchmark)
    yield partial(check_sampled, recipe)


def check_stage(recipe: Recipe, stage: Stage) -> None:
    """Judges whether the sources of one stage have the rows it reads; raises UserError."""
    for source in recipe.stage(stage).sources:
        sources.check(source, STAGES[stage].rows)


def check_sampled(recipe: Recipe) -> None:
    """Judges the questions that preference pairs are sampled about.

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


def check_model(model: Model) -> None:
    """Judges the families of local folders, and whether hub ids look like one; raises UserError."""
    _check_weights("vision", model)
    _check_weights("language", model)


def check_ranks(recipe: Recipe) -> None:
    """Judges the ranks of adapters where the language model is a local folder.

    Raises:
        UserError: one is above the width of all layers that it is for.
    """
    folder = shipped(recipe.model.language)
    adapters = [(stage, recipe.stage(stage).adapter) for stage in recipe.trained]
    if not (folder / "config.json").is_file() or not any(adapter for _, adapter in adapters):
        return
    from siqvl.adapters.rank import check_rank
    from siqvl.model.decoders import decoder_of

    try:
        config = _part("language", folder, recipe.model)
    except UserError:  # which is said already
        return
    sizes = decoder_of(config).linear_sizes(config)
    for stage, adapter in adapters:
        if adapter is not None:
            found = [sizes[name] for name in adapter.layers if name in sizes]
            check_rank(adapter.rank, found, f"stages.{stage}.adapter.rank")


def _check_weights(
    key: Literal["vision", "language"], model: Model, *, families: bool = True
) -> None:
    """Judges one of the two parts of `model`, see `check_model`; raises UserError."""
    name: str = getattr(model, key)
    folder = shipped(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"model.{key}: folder {name} has no config.json")
        if families:
            _part(key, folder, model)
    elif not HUB_ID.fullmatch(name):
        raise UserError(
            f"model.{key}: {name} is neither a folder here nor a hub id like `owner/name`"
        )


def _part(key: Literal["vision", "language"], folder: Path, model: Model) -> Any:
    """The config of a part that is a folder here; raises UserError for one that cannot be used."""
    # transformers is loaded here, and not with every workflow
    from siqvl.model.assemble import read_part

    try:
        return read_part(key, folder, trust_remote_code=model.trust_remote_code)
    except (ValueError, OSError) as error:  # what transformers raises for a file it cannot read
        raise UserError(f"model.{key}: {one_line(error)}") from None
