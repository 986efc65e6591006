"""Answers -> scores: of every player, question by question, then on average."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from siqvl.data.schema import Row
from siqvl.errors import UserError
from siqvl.evaluation.asking.preferred import preference_score
from siqvl.evaluation.asking.prompts import Output
from siqvl.evaluation.asking.question_plan import Ask, players_of
from siqvl.evaluation.benchmarks.benchmark_rows import Questions
from siqvl.evaluation.scoring.extraction import extract_answer
from siqvl.evaluation.scoring.intervals import bootstrap_interval, paired_interval
from siqvl.evaluation.scoring.predictions import schema
from siqvl.evaluation.scoring.scorers import scorer
from siqvl.evaluation.scoring.scores import Result, Score, TypeScore
from siqvl.recipe import Benchmark, Player

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

#: Of the method `preference`, which needs no scorer; raise its version when its score changes.
PREFERENCE_SCORER = "preference/1"


def predictions_of(questions: Questions, outputs: dict[Ask, Output], floors: pa.Table) -> pa.Table:
    """The lines of `predictions.parquet` about one benchmark.

    Args:
        outputs: what the model answered.
        floors: what the guessers answered (`read_floors`).

    Raises:
        UserError: answers are missing.
    """
    import pyarrow as pa

    benchmark = questions.benchmark
    lines: list[Row] = []
    for player in players_of(questions):
        for index, row in enumerate(questions.rows):
            output = outputs.get((player, index))
            if output is None:
                raise UserError(
                    f"benchmark `{benchmark.name}`: the answer to question {row['id']} is missing; "
                    "run all shards of this evaluation"
                )
            lines.append(_line(benchmark, player, row) | _judged(benchmark, row, output))
    rows = {row["id"]: row for row in questions.rows}
    for guess in floors.to_pylist():
        given = {"generation": "", "answer": guess["answer"], "score": guess["score"]}
        lines.append(_line(benchmark, guess["player"], rows[guess["id"]]) | given)
    return pa.Table.from_pylist(lines, schema())


def _line(benchmark: Benchmark, player: Player, row: Row) -> Row:
    named = {"benchmark": benchmark.name, "player": player}
    return named | {name: row[name] for name in ("id", "type", "question", "answers", "choices")}


def _judged(benchmark: Benchmark, row: Row, output: Output) -> Row:
    """What was scored, and its score."""
    generation, answers, choices = output.generation, row["answers"], row["choices"]
    if output.margin is not None:
        score = preference_score(output.margin)
        answer = {1.0: choices[0], 0.0: choices[-1]}.get(score, "")
        return {"generation": "", "answer": answer, "margin": output.margin, "score": score}
    answer = extract_answer(generation, benchmark.answer_marker)
    if benchmark.method == "likelihood" and benchmark.scorer != "choice":
        answer = choices[ord(generation) - ord("A")]
    score = scorer(benchmark.scorer).score(answer, answers, choices)
    return {"generation": generation, "answer": answer, "score": score}


def score_of(
    questions: Questions,
    predictions: pa.Table,
    *,
    prompt: str,
    batch_size: int,
    seed: int,
) -> Score:
    """The score of one benchmark from its lines of `predictions.parquet`."""
    import numpy as np

    benchmark = questions.benchmark
    names = np.array(predictions["player"].to_pylist())
    scores = predictions["score"].to_numpy()
    played: dict[Player, np.ndarray] = {
        player: scores[names == player] for player in dict.fromkeys(names.tolist())
    }
    own = played["picture"]
    kinds = np.array([row["type"] for row in questions.rows])
    return Score(
        benchmark=benchmark.name,
        questions=len(questions.rows),
        players={player: _result(values, seed) for player, values in played.items()},
        lead={
            player: Result(
                mean=float(np.mean(own - values)),
                interval=paired_interval(own, values, seed=seed),
            )
            for player, values in played.items()
            if player != "picture"
        },
        types={
            kind: TypeScore(
                questions=int((kinds == kind).sum()),
                players={
                    player: _result(values[kinds == kind], seed)
                    for player, values in played.items()
                },
            )
            for kind in sorted(set(kinds.tolist()) - {""})
        },
        method=benchmark.method,
        scorer=(
            PREFERENCE_SCORER
            if benchmark.method == "preference"
            else scorer(benchmark.scorer).label
        ),
        prompt=prompt,
        decoding=decoding_of(benchmark, batch_size),
        data_fingerprint=questions.manifest.fingerprint,
        split=benchmark.source.split,
    )


def decoding_of(benchmark: Benchmark, batch_size: int) -> dict[str, Any]:
    """How answers come about."""
    if benchmark.method != "generation":
        return {"method": benchmark.method, "batch_size": batch_size}
    return {
        "method": "greedy",
        "max_new_tokens": benchmark.max_new_tokens,
        "batch_size": batch_size,
    }


def _result(scores: np.ndarray, seed: int) -> Result:
    return Result(mean=float(scores.mean()), interval=bootstrap_interval(scores, seed=seed))
