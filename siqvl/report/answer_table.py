"""An evaluation's answers with their pictures, as a table on MLflow's pages.

Every evaluation on the same benchmarks has the same questions in it, so that the pages of several
runs show side by side what each of them answered.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from siqvl.evaluation.scoring.scores import Scores
from siqvl.evaluation.shown_answers import pick_samples, pictures_of, written_answers
from siqvl.tracking.runs import RunLog
from siqvl.tracking.sample_table import Answered, SampleTable


def keep_answers(log: RunLog, report: Path, data: Path, count: int) -> None:
    """Log `count` questions of an EvalReport, spread evenly over benchmarks and types.

    Args:
        data: the prepared benchmarks.
    """
    samples = pick_samples([(Scores.read(report), written_answers(report))], count)
    if not samples:  # of pairs that are compared nobody writes an answer
        return
    pictures = pictures_of(samples, data)
    answered = [
        Answered(
            id="/".join(sample.place),
            picture=next((Image.open(io.BytesIO(one)) for one in pictures[sample.place]), None),
            question=sample.question["question"],
            gold=" | ".join(dict.fromkeys(sample.question["answers"])),
            answer=sample.question["generation"],
            trained_on=0,
        )
        for sample in samples
    ]
    SampleTable(log).add(0, answered, sheet=False)
