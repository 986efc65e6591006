"""Answers -> scores: of every player, question by question, then on average."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from siqvl.data.schema import Row
from siqvl.errors import UserError
from siqvl.evaluation.asking.prompts import Output
from siqvl.evaluation.asking.question_plan import Ask, players_of
from siqvl.evaluation.benchmarks.benchmark_rows import Questions
from siqvl.evaluation.scoring.extraction import extract_answer
from siqvl.evaluation.scoring.intervals import bootstrap_interval
from siqvl.evaluation.scoring.predictions import schema
from siqvl.evaluation.scoring.scorers import scorer
from siqvl.evaluation.scoring.scores import Result, Score, TypeScore
from siqvl.recipe import Benchmark, Player, Recipe

#: Of the method `preference`, which needs no scorer; raise its version when its score changes.
PREFERENCE_SCORER = "preference/1"


def predictions_of(
    questions: Questions, outputs: dict[Ask, Output], baselines: pa.Table
) -> pa.Table:
    """Builds the lines of `predictions.parquet` about one benchmark.

    Args:
        outputs: what the model answered.
        baselines: what the guessers answered (`read_baselines`).

    Raises:
        UserError: answers are missing.
    """
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
    for guess in baselines.to_pylist():
        given = {"generation": "", "answer": guess["answer"], "score": guess["score"]}
        lines.append(_line(benchmark, guess["player"], rows[guess["id"]]) | given)
    return pa.Table.from_pylist(lines, schema())


def _line(benchmark: Benchmark, player: Player, row: Row) -> Row:
    told = ("id", "type", "group", "question", "answers", "choices")
    return {"benchmark": benchmark.name, "player": player} | {name: row[name] for name in told}


def _judged(benchmark: Benchmark, row: Row, output: Output) -> Row:
    """What was scored, and its score."""
    generation, answers, choices = output.generation, row["answers"], row["choices"]
    if output.margin is not None:
        score = preference_score(output.margin)
        answer = {1.0: choices[0], 0.0: choices[-1]}.get(score, "")
        return {"generation": "", "answer": answer, "margin": output.margin, "score": score}
    answer = extract_answer(generation, benchmark.answer_marker)
    judge = scorer(benchmark.scorer, official=benchmark.official)
    if benchmark.method == "likelihood" and not judge.chooses:
        answer = choices[ord(generation) - ord("A")]
    score = judge.score(answer, answers, choices, type=row["type"], by_letter=benchmark.letters)
    return {"generation": generation, "answer": answer, "score": score}


def preference_score(margin: float) -> float:
    """Scores 1 if the chosen completion is likelier, 0 if the rejected one is, 0.5 if neither."""
    return 0.5 if margin == 0 else float(margin > 0)


def score_of(questions: Questions, predictions: pa.Table, prompt: str, recipe: Recipe) -> Score:
    """Computes the score of one benchmark from its lines of `predictions.parquet`.

    Args:
        prompt: the first question as the model read it.
    """
    benchmark = questions.benchmark
    names = np.array(predictions["player"].to_pylist())
    scores = predictions["score"].to_numpy()
    played: dict[Player, np.ndarray] = {
        player: scores[names == player] for player in dict.fromkeys(names.tolist())
    }
    own = played["picture"]
    lead: dict[Player, np.ndarray] = {
        player: own - values for player, values in played.items() if player != "picture"
    }
    kinds = np.array([row["type"] for row in questions.rows])
    types = {}
    for kind in sorted(set(kinds.tolist()) - {""}):
        of_kind = {player: values[kinds == kind] for player, values in played.items()}
        types[kind] = TypeScore(
            questions=len(of_kind["picture"]), players=_results(of_kind, recipe.seed)
        )
    compared = benchmark.method == "preference"
    judge = scorer(benchmark.scorer, official=benchmark.official)
    figures = {}
    if judge.figures and not compared:
        figures = judge.figures(predictions.filter(pa.array(names == "picture")).to_pylist())
    return Score(
        benchmark=benchmark.name,
        questions=len(questions.rows),
        players=_results(played, recipe.seed),
        lead=_results(lead, recipe.seed),
        types=types,
        figures=figures,
        method=benchmark.method,
        scorer=PREFERENCE_SCORER if compared else judge.label,
        prompt=prompt,
        decoding=_decoding(benchmark, recipe.evaluation.batch_size),
        data_fingerprint=questions.manifest.fingerprint,
        split=benchmark.source.split,
    )


def _decoding(benchmark: Benchmark, batch_size: int) -> dict[str, Any]:
    """How answers come about, as it is stored beside a score."""
    if benchmark.method != "generation":
        return {"method": benchmark.method, "batch_size": batch_size}
    most = benchmark.max_new_tokens
    return {"method": "greedy", "max_new_tokens": most, "batch_size": batch_size}


def _results(scores: dict[Player, np.ndarray], seed: int) -> dict[Player, Result]:
    return {
        player: Result(mean=float(own.mean()), interval=bootstrap_interval(own, seed=seed))
        for player, own in scores.items()
    }
