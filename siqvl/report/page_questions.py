"""Which questions the page shows, and what every stage answered to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siqvl.evaluation.scoring.predictions import read_predictions
from siqvl.evaluation.scoring.scores import Scores

if TYPE_CHECKING:
    import pyarrow as pa

Prediction = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """A question of a benchmark and its answers."""

    question: Prediction  # as the first model answered it
    answers: list[tuple[Scores, Prediction]] = field(default_factory=list)


def pick_samples(reports: Sequence[tuple[Scores, Path]], count: int) -> list[Sample]:
    """`count` questions, spread evenly over benchmarks and types, chosen by their place alone.

    Preference pairs are left out: nobody writes an answer to them.

    Args:
        reports: scores and EvalReport directories, in the order of the stages.
    """
    models = [(scores, _answers(read_predictions(directory))) for scores, directory in reports]
    groups = _groups(models)
    samples: list[Sample] = []
    for questions, share in _shares(groups, count):
        for index in range(share):
            question = questions[(2 * index + 1) * len(questions) // (2 * share)]
            key = (question["benchmark"], question["id"])
            given = [(scores, found[key]) for scores, found in models if key in found]
            samples.append(Sample(question, given))
    return samples


def _answers(table: pa.Table) -> dict[tuple[str, str], Prediction]:
    """What the model wrote, by benchmark and id."""
    import pyarrow.compute as pc

    own = table.filter(pc.and_(pc.equal(table["player"], "picture"), pc.is_null(table["margin"])))
    return {(row["benchmark"], row["id"]): row for row in own.to_pylist()}


def _groups(
    models: Iterable[tuple[Scores, dict[tuple[str, str], Prediction]]],
) -> dict[tuple[str, str], list[Prediction]]:
    """Questions by benchmark and type, in the benchmark's order."""
    seen: dict[tuple[str, str], Prediction] = {}
    for _, answers in models:
        for key, row in answers.items():
            seen.setdefault(key, row)
    groups: dict[tuple[str, str], list[Prediction]] = {}
    for row in seen.values():
        groups.setdefault((row["benchmark"], row["type"]), []).append(row)
    return groups


def _shares(
    groups: dict[tuple[str, str], list[Prediction]], count: int
) -> list[tuple[list[Prediction], int]]:
    """How many each group shows: benchmarks take turns, and within each its types do."""
    taken = dict.fromkeys(groups, 0)
    benchmarks: dict[str, list[tuple[str, str]]] = {}
    for group in groups:
        benchmarks.setdefault(group[0], []).append(group)
    left = min(count, sum(len(questions) for questions in groups.values()))
    while left:
        for own in benchmarks.values():
            open_ = [group for group in own if taken[group] < len(groups[group])]
            if open_ and left:
                taken[min(open_, key=lambda group: taken[group])] += 1
                left -= 1
    return [(questions, taken[group]) for group, questions in groups.items()]
