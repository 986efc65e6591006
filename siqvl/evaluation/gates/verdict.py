"""Verdicts: what became of a recipe's gates, as stored in `gates.json` and as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from siqvl.number_formats import bound_points, percent, points, span
from siqvl.recipe import Control, Player, Stage, control_of
from siqvl.stages import STAGES
from siqvl.stored import Stored, read_stored
from siqvl.text_table import text_table

VERDICTS = "gates.json"

#: How a player is told apart in words; the model with its picture needs none.
PLAYERS: dict[Player, str] = {
    "picture": "",
    "no_picture": "without the picture",
    "other_picture": "with another picture",
    "majority": "always the most frequent answer",
    "question_only": "the most frequent answer to the question",
    "random_choice": "an option at random",
}


class Side(Stored):
    """One of the two that a gate compares."""

    stage: Stage
    random_tower: bool
    likelihood_control: bool = False
    benchmark: str
    player: Player
    judged: str = ""  # how the benchmark was asked and scored: `generation, exact_match/1`

    @property
    def control(self) -> Control | None:
        """Which control is meant; None: the stage itself."""
        return control_of(self)

    @property
    def label(self) -> str:
        """How people read it: `VQA SFT, vqa, without the picture`."""
        control = self.control.words if self.control else ""
        parts = [STAGES[self.stage].title, control, self.benchmark, PLAYERS[self.player]]
        return ", ".join(part for part in parts if part)


class Verdict(Stored):
    """What became of one gate; shares in [0, 1], None where it could not be tested."""

    claim: str
    passed: bool
    side: Side
    rival: Side
    above: float | None
    below: float | None
    n: int  # questions
    mean: float | None
    rival_mean: float | None
    difference: float | None
    interval: tuple[float, float] | None  # 95 %, paired bootstrap
    sentence: str  # all of it, in words

    @property
    def judged(self) -> str:
        """How the benchmarks were asked and scored, both where the sides differ."""
        ways = dict.fromkeys(filter(None, (self.side.judged, self.rival.judged)))
        return " against ".join(ways)

    @property
    def outcome(self) -> str:
        """What became of it in a word."""
        return "passed" if self.passed else "failed"


def write_verdicts(verdicts: Sequence[Verdict], directory: Path) -> None:
    """Writes `gates.json`."""
    content = TypeAdapter(list[Verdict]).dump_json(list(verdicts), indent=2)
    (directory / VERDICTS).write_bytes(content + b"\n")


def read_verdicts(directory: Path) -> list[Verdict]:
    """Reads `gates.json`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    missing = (
        f"{directory} is no pipeline report: it has no {VERDICTS}; pass the directory that "
        "pipeline_report printed"
    )
    return read_stored(directory / VERDICTS, list[Verdict], missing)


def summary(verdicts: Sequence[Verdict]) -> str:
    """Sums the verdicts up in one line."""
    if not verdicts:
        return "nothing was tested: the recipe has no gates"
    failed = [verdict.claim for verdict in verdicts if not verdict.passed]
    count = len(verdicts)
    if not failed:
        return f"all {count} gates passed" if count > 1 else "the gate passed"
    return f"{len(failed)} of {count} gates failed: {'; '.join(failed)}"


def gate_table(verdicts: Sequence[Verdict]) -> str:
    """Writes the table a pipeline ends with, a gate a line, and why any were not tested."""
    figures = ("n", "score", "against", "points", "95 % interval")
    head = ("gate", "claim", *figures, "must lie", "method, scorer")
    lines = [head] + [
        (
            verdict.outcome,
            verdict.claim,
            f"{verdict.n:,}" if verdict.n else "–",
            percent(verdict.mean),
            percent(verdict.rival_mean),
            "–" if verdict.difference is None else points(verdict.difference),
            "–" if verdict.interval is None else span(verdict.interval),
            required(verdict.above, verdict.below),
            verdict.judged or "–",
        )
        for verdict in verdicts
    ]
    table = text_table(lines, left=(0, 1, len(head) - 2, len(head) - 1))
    return "\n".join(table + [v.sentence for v in verdicts if v.interval is None])


def required(above: float | None, below: float | None) -> str:
    """Writes where a gate wants a difference: `above 0`, `below +2.5` points, or both."""
    bounds = (("above", above), ("below", below))
    return " and ".join(f"{word} {bound_points(at)}" for word, at in bounds if at is not None)
