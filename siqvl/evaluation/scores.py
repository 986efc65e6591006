"""Scores of one checkpoint, as stored in `scores.json`, and the table over stages."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from siqvl.evaluation.floors import Floors
from siqvl.recipe import Stage

SCORES = "scores.json"


class Score(BaseModel):
    """One benchmark; shares in [0, 1], intervals are 95 % bootstrap."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    questions: int
    accuracy: float
    interval: tuple[float, float]
    blind: float  # the same checkpoint and questions, image removed
    blind_interval: tuple[float, float]
    floors: Floors
    prompt: str  # the first question exactly as the model read it
    decoding: dict[str, str | int]
    scorer: str
    data_fingerprint: str


class Scores(BaseModel):
    """All benchmarks of one checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Stage
    checkpoint_hash: str
    scores: list[Score]

    @classmethod
    def read(cls, directory: Path) -> Scores:
        """Read an EvalReport directory."""
        return cls.model_validate_json((directory / SCORES).read_text(encoding="utf-8"))

    def write(self, directory: Path) -> None:
        """Write `scores.json`."""
        (directory / SCORES).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def metrics(self) -> dict[str, float]:
        """`<benchmark>/accuracy` and its company, for MLflow."""
        found: dict[str, float] = {}
        for score in self.scores:
            values = {
                "accuracy": score.accuracy,
                "accuracy_low": score.interval[0],
                "accuracy_high": score.interval[1],
                "blind": score.blind,
                "majority": score.floors.majority,
                "question_only": score.floors.question_only,
                "random_choice": score.floors.random_choice,
            }
            found |= {
                f"{score.benchmark}/{name}": value
                for name, value in values.items()
                if value is not None
            }
        return found


COLUMNS = (
    "stage",
    "benchmark",
    "n",
    "accuracy",
    "95 % interval",
    "blind",
    "majority",
    "q-only",
    "random",
)


def stage_table(reports: list[Scores]) -> str:
    """The table a pipeline ends with: every stage on every benchmark, floors beside the score."""
    rows = [COLUMNS]
    for report in reports:
        for score in report.scores:
            floors = score.floors
            rows.append(
                (
                    report.stage.value,
                    score.benchmark,
                    f"{score.questions:,}",
                    percent(score.accuracy),
                    f"{percent(score.interval[0])} – {percent(score.interval[1])}",
                    percent(score.blind),
                    percent(floors.majority),
                    percent(floors.question_only),
                    percent(floors.random_choice),
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def percent(share: float | None) -> str:
    """`42.0 %`, or a dash for a guesser that cannot play."""
    return "–" if share is None else f"{100 * share:.1f} %"
