"""Which answers a page or table shows: questions chosen by their place, and their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from siqvl.data.manifest import Manifest
from siqvl.data.shards import load_prepared
from siqvl.evaluation.scoring.predictions import read_predictions
from siqvl.evaluation.scoring.scores import Scores

Prediction = dict[str, Any]
#: A question: its benchmark and its id.
Place = tuple[str, str]


@dataclass(frozen=True)
class Sample:
    """A question of a benchmark and its answers."""

    question: Prediction  # as the first model answered it
    answers: list[tuple[Scores, Prediction]] = field(default_factory=list)

    @property
    def place(self) -> Place:
        """Where the question stands."""
        return _place(self.question)

    @property
    def gold(self) -> str:
        """Different right answers, once each, the most frequent first."""
        answers: list[str] = self.question["answers"]
        return " | ".join(answer for answer, _ in Counter(answers).most_common())


def written_answers(report: Path) -> list[Prediction]:
    """What the model of an EvalReport wrote; to preference pairs nobody writes an answer."""
    own = answers_of_the_model(read_predictions(report))
    return [prediction for prediction in own if prediction["margin"] is None]


def answers_of_the_model(predictions: pa.Table) -> list[Prediction]:
    """The answers that were given with the picture, in the order of the questions."""
    return predictions.filter(pc.equal(predictions["player"], "picture")).to_pylist()


def pick_samples(models: Sequence[tuple[Scores, Sequence[Prediction]]], count: int) -> list[Sample]:
    """`count` questions, spread evenly over benchmarks and types, chosen by their place alone.

    Args:
        models: scores and answers, in the order of the stages.
    """
    found = [(scores, {_place(row): row for row in answers}) for scores, answers in models]
    groups: dict[tuple[str, str], dict[Place, Prediction]] = {}
    for _, rows in found:
        for place, row in rows.items():
            groups.setdefault((row["benchmark"], row["type"]), {}).setdefault(place, row)
    samples: list[Sample] = []
    for group, share in _shares({name: len(rows) for name, rows in groups.items()}, count).items():
        places = list(groups[group])
        for index in range(share):
            place = places[(2 * index + 1) * len(places) // (2 * share)]
            given = [(scores, rows[place]) for scores, rows in found if place in rows]
            samples.append(Sample(groups[group][place], given))
    return samples


def pictures_of(samples: Sequence[Sample], benchmarks: Path) -> dict[Place, list[bytes]]:
    """The picture files of the samples, each benchmark read once.

    Args:
        benchmarks: folder of the prepared benchmarks.
    """
    wanted: dict[str, set[str]] = {}
    for sample in samples:
        wanted.setdefault(sample.question["benchmark"], set()).add(sample.question["id"])
    found: dict[Place, list[bytes]] = {}
    for name, ids in wanted.items():
        folder = benchmarks / name
        dataset, _ = load_prepared(folder, Manifest.read(folder).kind, verify=False)
        stored = dataset.select_columns(["id", "images"]).with_format("arrow")
        for row, id in enumerate(dataset["id"]):
            if id in ids:
                images = stored[row]["images"][0].as_py()
                found[name, id] = [image["bytes"] for image in images]
    return found


def _place(row: Prediction) -> Place:
    return row["benchmark"], row["id"]


def _shares(groups: dict[tuple[str, str], int], count: int) -> dict[tuple[str, str], int]:
    """How many each group shows: benchmarks take turns, and within each its types do.

    Args:
        groups: benchmark and type -> how many questions there are.
    """
    taken = dict.fromkeys(groups, 0)
    benchmarks = dict.fromkeys(benchmark for benchmark, _ in groups)
    left = min(count, sum(groups.values()))
    while left:
        for benchmark in benchmarks:
            unfilled = [one for one in groups if one[0] == benchmark and taken[one] < groups[one]]
            if unfilled and left:
                taken[min(unfilled, key=lambda group: taken[group])] += 1
                left -= 1
    return taken
