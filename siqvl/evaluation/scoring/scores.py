"""Scores of one checkpoint, as stored in `scores.json`, and the table over stages."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from siqvl.number_formats import percent
from siqvl.recipe import Control, Player, Stage, control_of
from siqvl.stages import STAGES
from siqvl.stored import Stored, read_stored
from siqvl.text_table import text_table

SCORES = "scores.json"


class Result(Stored):
    """A mean, a share in [0, 1], and its 95 % bootstrap interval."""

    mean: float
    interval: tuple[float, float]


class TypeScore(Stored):
    """The questions of one type."""

    questions: int
    players: dict[Player, Result]


class Score(Stored):
    """One benchmark."""

    benchmark: str
    questions: int
    players: dict[Player, Result]  # who answered; `picture`, the model itself, is always there
    lead: dict[Player, Result]  # paired difference of `picture` and each other player
    types: dict[str, TypeScore]  # by type of question; empty where the source tells none
    #: What is published beside the mean, as MME's sums of subtasks.
    figures: dict[str, float] = Field(default_factory=dict)
    method: str
    scorer: str  # `<name>/<version>`
    prompt: str  # the first question exactly as the model read it
    decoding: dict[str, str | int]
    data_fingerprint: str
    split: str = ""  # of the benchmark's source

    @property
    def how(self) -> str:
        """How it was asked and scored, with its figures: `generation, mme/1; total 1,210.0`."""
        return "; ".join(filter(None, (self.judged, self.figures_text)))

    @property
    def judged(self) -> str:
        """How it was asked and scored: `generation, mme/1`."""
        return f"{self.method}, {self.scorer}"

    @property
    def figures_text(self) -> str:
        """The figures beside the mean, each in its own unit."""
        return ", ".join(f"{name} {value:,.1f}" for name, value in self.figures.items())


class Scores(Stored):
    """All benchmarks of one checkpoint: `scores.json`."""

    stage: Stage
    random_tower: bool  # the control of stage 1
    likelihood_control: bool = False  # the control of stage 4
    checkpoint_hash: str
    scores: list[Score]

    @property
    def control(self) -> Control | None:
        """Which control the model is; None: a stage itself."""
        return control_of(self)

    @property
    def title(self) -> str:
        """`projector alignment`, or the same with what is said of the control."""
        title = STAGES[self.stage].title
        return f"{title}, {self.control.words}" if self.control else title

    def find(self, benchmark: str) -> Score | None:
        """The scores of a benchmark; None where it was not asked."""
        return next((score for score in self.scores if score.benchmark == benchmark), None)

    @classmethod
    def read(cls, directory: Path) -> Scores:
        """Reads an EvalReport directory.

        Raises:
            UserError: it is none, or is damaged.
        """
        missing = (
            f"{directory} is no evaluation report: it has no {SCORES}; pass the directory that an "
            "evaluation printed"
        )
        return read_stored(directory / SCORES, cls, missing)

    def write(self, directory: Path) -> None:
        """Writes `scores.json`."""
        (directory / SCORES).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def metrics(self) -> dict[str, float]:
        """Names the figures for MLflow: `<benchmark>/accuracy` and its company."""
        found: dict[str, float] = {}
        for score in self.scores:
            values: dict[str, float] = {player: one.mean for player, one in score.players.items()}
            values["accuracy"] = values.pop("picture")
            values["accuracy_low"], values["accuracy_high"] = score.players["picture"].interval
            for kind, one in score.types.items():
                values[f"type/{kind}"] = one.players["picture"].mean
            values |= {f"figure/{name}": value for name, value in score.figures.items()}
            found |= {f"{score.benchmark}/{name}": value for name, value in values.items()}
        return found


#: Players beside the model, in the order of every table, with the head of their column.
OTHERS: dict[Player, str] = {
    "no_picture": "no picture",
    "other_picture": "other picture",
    "majority": "majority",
    "question_only": "q-only",
    "random_choice": "random",
}
COLUMNS = ("stage", "benchmark", "n", "score", "95 % interval", *OTHERS.values())


def stage_table(reports: list[Scores]) -> str:
    """Writes the table of a pipeline: every stage on every benchmark, other players beside it.

    Below it stands how each benchmark was asked and scored; a line a stage where that differs.
    """
    rows = [COLUMNS]
    notes: dict[str, None] = {}
    for report in reports:
        stage = report.stage.value + (f", {report.control.words}" if report.control else "")
        for score in report.scores:
            own = score.players["picture"]
            notes[f"{score.benchmark}: {score.how}"] = None
            rows.append(
                (
                    stage,
                    score.benchmark,
                    f"{score.questions:,}",
                    percent(own.mean),
                    between(own),
                    *(mean_of(score.players.get(player)) for player in OTHERS),
                )
            )
    return "\n".join([*text_table(rows, left=(0, 1)), "", *notes])


def between(result: Result) -> str:
    """Writes the interval: `41.0 % – 43.0 %`."""
    return f"{percent(result.interval[0])} – {percent(result.interval[1])}"


def mean_of(result: Result | None) -> str:
    """Writes the mean of a player; a dash for one that cannot play."""
    return percent(None if result is None else result.mean)
