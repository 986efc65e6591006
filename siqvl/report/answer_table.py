"""An evaluation's answers with their pictures, as a table on MLflow's pages.

Every evaluation on the same benchmarks has the same questions in it, so that the pages of several
runs show side by side what each of them answered.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.data.manifest import Manifest
from siqvl.data.shards import load_prepared
from siqvl.evaluation.scoring.scores import Scores
from siqvl.report.page_questions import pick_samples
from siqvl.tracking.runs import RunLog
from siqvl.tracking.sample_table import Answered, SampleTable

if TYPE_CHECKING:
    from PIL.Image import Image


def keep_answers(log: RunLog, report: Path, data: Path, count: int) -> None:
    """Log `count` questions of an EvalReport, spread evenly over benchmarks and types.

    Args:
        data: the prepared benchmarks.
    """
    samples = [one.question for one in pick_samples([(Scores.read(report), report)], count)]
    if not samples:  # of pairs that are compared nobody writes an answer
        return
    pictures: dict[tuple[str, str], Image | None] = {}
    for benchmark in dict.fromkeys(row["benchmark"] for row in samples):
        ids = {row["id"] for row in samples if row["benchmark"] == benchmark}
        pictures |= _pictures(data / benchmark, benchmark, ids)
    answered = [
        Answered(
            id=f"{row['benchmark']}/{row['id']}",
            picture=pictures[row["benchmark"], row["id"]],
            question=row["question"],
            gold=" | ".join(dict.fromkeys(row["answers"])),
            answer=row["generation"],
            trained_on=0,
        )
        for row in samples
    ]
    SampleTable(log).add(0, answered, sheet=False)


def _pictures(folder: Path, benchmark: str, ids: set[str]) -> dict[tuple[str, str], Image | None]:
    """The first picture of each of these rows."""
    dataset, _ = load_prepared(folder, Manifest.read(folder).kind, verify=False)
    places = [(place, id) for place, id in enumerate(dataset["id"]) if id in ids]
    return {(benchmark, id): next(iter(dataset[place]["images"]), None) for place, id in places}
