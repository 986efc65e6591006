"""What is looked at: the sources of a recipe with what they are for, or one table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.evaluation.benchmarks.prepare_benchmarks import row_kind
from siqvl.recipe import DataPrep, Recipe, RewardStage, SFTStage, Source, Stage
from siqvl.stages import STAGES

EVALUATION = "evaluation"  # in place of a stage: the benchmarks, as in `data_prep --stage`


class Use(StrEnum):
    """What the rows of a source are for."""

    TRAINING = "training"
    BENCHMARK = "benchmark"
    QUESTIONS = "questions to sample pairs about"


@dataclass(frozen=True)
class Subject:
    """One source that is looked at, and what its rows are for.

    Attributes:
        title: where the recipe has it, or its path.
        stage: the stage that trains on it; None for other uses, and where no recipe is given.
        suffix: what is appended to each question.
        data, seed: how its rows would be prepared.
    """

    title: str
    source: Source
    kind: RowKind
    use: Use
    stage: SFTStage | None
    suffix: str
    data: DataPrep
    seed: int


def of_recipe(recipe: Recipe, only: str | None = None) -> list[Subject]:
    """The sources of every stage and benchmark of a recipe.

    Args:
        only: a stage, or `evaluation` for the benchmarks; None for all.

    Raises:
        UserError: `only` is neither.
    """
    known = [*map(str, Stage), EVALUATION]
    if only is not None and only not in known:
        raise UserError(f"no stage is called `{only}`; known are {', '.join(known)}")
    found = []
    for stage in Stage if only else recipe.trained:
        if only in (None, stage):
            found += _of_stage(recipe, stage)
    for benchmark in recipe.evaluation.benchmarks if only in (None, EVALUATION) else ():
        kind = row_kind(benchmark)
        found.append(
            Subject(
                f"benchmark {benchmark.name}",
                benchmark.source,
                kind,
                Use.QUESTIONS if benchmark.sampled else Use.BENCHMARK,
                None,
                "" if kind is RowKind.PREFERENCE else benchmark.prompt_suffix,
                recipe.data,
                recipe.seed,
            )
        )
    return found


def _of_stage(recipe: Recipe, stage: Stage) -> list[Subject]:
    settings, kind = recipe.stage(stage), STAGES[stage].rows
    suffix = settings.prompt_suffix if isinstance(settings, RewardStage) else ""
    found = [
        Subject(
            f"{stage}, source {number}",
            *(source, kind, Use.TRAINING, settings, suffix, recipe.data, recipe.seed),
        )
        for number, source in enumerate(settings.sources, 1)
    ]
    sampled = recipe.stages.dpo.sampled if stage is Stage.DPO else None
    if sampled is not None:
        found.append(
            Subject(
                f"{stage}, sampled questions",
                *(sampled.source, RowKind.EVALUATION, Use.QUESTIONS, None),
                *(sampled.prompt_suffix, recipe.data, recipe.seed),
            )
        )
    return found


def of_source(source: Source, kind: RowKind, recipe: Recipe | None, stage: str | None) -> Subject:
    """One source by itself; with a recipe, as a stage of it would read it.

    Args:
        stage: of the recipe; None for the first one that trains on rows of this kind.

    Raises:
        UserError: there is no such stage, or it reads rows of another kind.
    """
    settings = None
    if recipe is not None and kind is not RowKind.EVALUATION:
        fitting = [str(one) for one in Stage if STAGES[one].rows is kind]
        if stage is not None and stage not in fitting:
            raise UserError(f"stage `{stage}` reads no {kind} rows; these do: {', '.join(fitting)}")
        # the question is what rows look like, and stage 1 and 2 differ in limits alone
        settings = recipe.stage(Stage(stage or fitting[-1]))
    return Subject(
        str(source.path or source.kind),
        source,
        kind,
        Use.BENCHMARK if kind is RowKind.EVALUATION else Use.TRAINING,
        settings,
        "",
        recipe.data if recipe else DataPrep(),
        recipe.seed if recipe else 0,
    )
