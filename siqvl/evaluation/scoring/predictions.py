"""`predictions.parquet`: every answer of every player, one a line, beside its score.

What a table, a gate or a report says can be computed again from this file alone.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.errors import UserError

PREDICTIONS = "predictions.parquet"


def schema() -> pa.Schema:
    """Names the columns; the rows of a player are in the benchmark's order."""
    return pa.schema(
        {
            "benchmark": pa.string(),
            "id": pa.string(),  # equal ids in two benchmarks: the same question, asked otherwise
            "player": pa.string(),  # siqvl.recipe.Player
            "type": pa.string(),  # kind of question, "" where the source tells none
            "group": pa.string(),  # questions that are counted together, likewise
            "question": pa.string(),
            "answers": pa.list_(pa.string()),
            "choices": pa.list_(pa.string()),
            "generation": pa.string(),  # all that the model wrote
            "answer": pa.string(),  # what was scored
            "margin": pa.float64(),  # preference: log p(chosen) - log p(rejected), else null
            "score": pa.float64(),  # in [0, 1]
        }
    )


def read_predictions(report: Path, benchmark: str | None = None) -> pa.Table:
    """Reads the predictions of an EvalReport directory, all or those of one benchmark.

    Raises:
        UserError: the directory has none.
    """
    path = report / PREDICTIONS
    if not path.is_file():
        raise UserError(f"{report} is no evaluation report: it has no {PREDICTIONS}")
    filters = [("benchmark", "=", benchmark)] if benchmark is not None else None
    return pq.read_table(path, filters=filters)
