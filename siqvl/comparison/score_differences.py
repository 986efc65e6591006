"""The scores of two runs, benchmark by benchmark and stage by stage, with paired intervals."""

from __future__ import annotations

from pathlib import Path

from siqvl.comparison.side import Side, title
from siqvl.errors import UserError
from siqvl.evaluation.paired import compare
from siqvl.evaluation.scoring.scores import Score, Scores
from siqvl.number_formats import percent, points, span
from siqvl.text_table import text_table

HEAD = ("stage", "benchmark", "n", "A", "B", "B − A, points", "95 % interval", "")

Report = tuple[Scores, Path]


def score_table(a: Side, b: Side) -> str:
    """Return a table of what B scores more than A, and a sentence for what cannot be compared.

    Between them stands how each benchmark was asked and scored, where A's is not B's both.
    """
    rows: list[tuple[str, ...]] = [HEAD]
    notes: dict[str, None] = {}
    pairs, remarks = _pairs(a, b)
    for name, one, other in pairs:
        in_order = (score.benchmark for report in (other, one) for score in report[0].scores)
        for benchmark in dict.fromkeys(in_order):
            try:
                rows.append(_row(name, benchmark, one, other))
                notes[_judged(benchmark, one, other)] = None
            except UserError as error:
                remarks.append(f"{name}, {benchmark}: {error.message}")
    table = text_table(rows, left=(0, 1, 7)) if len(rows) > 1 else []
    return "\n".join([*table, *notes, *remarks]) or "Neither run has any scores."


def _pairs(a: Side, b: Side) -> tuple[list[tuple[str, Report, Report]], list[str]]:
    """The evaluations that belong together, and what is to be said of those that stand alone."""
    if len(a.reports) == len(b.reports) == 1:
        # two single runs, whatever stages they are of
        (one_key, one), (other_key, other) = *a.reports.items(), *b.reports.items()
        names = [title(*key) for key in dict.fromkeys((one_key, other_key))]
        return [(" → ".join(names), one, other)], []
    both = [key for key in a.reports if key in b.reports]
    pairs = [(title(*key), a.reports[key], b.reports[key]) for key in both]
    alone = [
        f"{title(*key)}: only {name} was evaluated; the other has no such run, failed before it, "
        "or took the result from Flyte's cache."
        for name, own, others in (("A", a.reports, b.reports), ("B", b.reports, a.reports))
        for key in own
        if key not in others
    ]
    return pairs, alone


def _row(name: str, benchmark: str, a: Report, b: Report) -> tuple[str, ...]:
    """A line of the table.

    Raises:
        UserError: the two cannot be compared on the benchmark, and why.
    """
    one, other = (_score(report[0], benchmark) for report in (a, b))
    if one is None or other is None:
        raise UserError(f"only {'B' if one is None else 'A'} answered it.")
    if one.data_fingerprint != other.data_fingerprint:
        # Equal ids do not make equal questions: generated ones are numbered whatever their seed.
        raise UserError(
            "the two answered different questions (their prepared data differs), which cannot be "
            "compared one by one; evaluate both checkpoints on the same prepared benchmarks."
        )
    try:
        found = compare(b[1], a[1], benchmark)
    except UserError:
        raise UserError(
            "the two answered different questions, which cannot be compared one by one."
        ) from None
    low, high = found.interval
    return (
        name,
        benchmark,
        f"{found.n:,}",
        percent(found.mean_b),
        percent(found.mean_a),
        points(found.difference),
        span(found.interval),
        "better" if low > 0 else "worse" if high < 0 else "",
    )


def _judged(benchmark: str, *reports: Report) -> str:
    found = [score.judged for report in reports if (score := _score(report[0], benchmark))]
    return f"{benchmark}: " + ", but B ".join(dict.fromkeys(found))


def _score(scores: Scores, benchmark: str) -> Score | None:
    return next((score for score in scores.scores if score.benchmark == benchmark), None)
