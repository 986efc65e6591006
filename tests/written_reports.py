"""EvalReport directories as an evaluation writes them, from scores that a test chooses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.evaluation.scoring.predictions import PREDICTIONS, schema
from siqvl.evaluation.scoring.scores import Result, Score, Scores
from siqvl.recipe import Control, Stage

#: (benchmark, player) -> score by question id.
Answers = Mapping[tuple[str, str], Mapping[str, float]]


def write_report(
    folder: Path,
    stage: Stage,
    answers: Answers,
    *,
    control: Control | None = None,
    checkpoint_hash: str = "",
    scorer: str = "exact_match/1",
    data_fingerprint: str = "",
) -> Path:
    """A report whose predictions have these scores and whose other columns are filled in."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = [
        {
            "benchmark": benchmark,
            "id": id,
            "player": player,
            "type": "",
            "question": f"question {id}",
            "answers": ["yes"],
            "choices": [],
            "generation": "yes" if score else "no",
            "answer": "yes" if score else "no",
            "margin": None,
            "score": score,
        }
        for (benchmark, player), scores in answers.items()
        for id, score in scores.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema()), folder / PREDICTIONS)
    names = dict.fromkeys(benchmark for benchmark, _ in answers)
    scored = [_score(name, answers, scorer, data_fingerprint) for name in names]
    hash = checkpoint_hash or stage.value
    Scores(
        stage=stage,
        random_tower=control is Control.RANDOM_TOWER,
        likelihood_control=control is Control.LIKELIHOOD,
        checkpoint_hash=hash,
        scores=scored,
    ).write(folder)
    return folder


def _score(name: str, answers: Answers, scorer: str, data_fingerprint: str) -> Score:
    players: dict[Any, Result] = {}
    for (benchmark, player), scores in answers.items():
        if benchmark == name:
            mean = sum(scores.values()) / len(scores)
            players[player] = Result(mean=mean, interval=(mean, mean))
    return Score(
        benchmark=name,
        questions=len(answers[name, "picture"]),
        players=players,
        lead={},
        types={},
        method="generation",
        scorer=scorer,
        prompt="",
        decoding={},
        data_fingerprint=data_fingerprint,
    )
