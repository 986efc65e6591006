"""Scores of all stages: bars with their intervals by benchmark, and the table with every player."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from siqvl.evaluation.gates.verdict import PLAYERS
from siqvl.evaluation.scoring.scores import OTHERS, Result, Score, Scores, mean_of, percent
from siqvl.page.axis import Axis
from siqvl.recipe import Player
from siqvl.stages import STAGES

_SHARES = Axis(0, 1)

#: A model and its score on one benchmark.
Line = tuple[Scores, Score]


def model_title(scores: Scores) -> str:
    """`projector alignment`, or the same behind a random tower."""
    title = STAGES[scores.stage].title
    return f"{title}, random tower" if scores.random_tower else title


def by_benchmark(reports: Sequence[Scores], names: Sequence[str]) -> dict[str, list[Line]]:
    """Who was scored on each benchmark, in the order of `names`; none that nobody was scored on."""
    found: dict[str, list[Line]] = {name: [] for name in names}
    for report in reports:
        for score in report.scores:
            if score.benchmark in found:
                found[score.benchmark].append((report, score))
    return {name: lines for name, lines in found.items() if lines}


def best_other(players: dict[Player, Result]) -> tuple[Player, float] | None:
    """The highest score to be had without looking, and whose it is."""
    others = [(player, players[player].mean) for player in OTHERS if player in players]
    return max(others, key=lambda other: other[1], default=None)


def score_bars(lines: dict[str, list[Line]]) -> str:
    """A card a benchmark, a bar a stage."""
    cards = "".join(_card(name, models) for name, models in lines.items())
    return f'<div class="grid wide scores">{cards}</div>'


def _card(name: str, models: list[Line]) -> str:
    _, score = models[0]
    return (
        f"<article class=card><header><h3>{escape(name)}</h3><p class=small>"
        f"{score.questions:,} questions, {escape(score.method)}, {escape(score.scorer)}</p>"
        f"</header><ul class=bars>{''.join(_bar(*model) for model in models)}</ul>{_scale()}"
        "</article>"
    )


def _bar(report: Scores, score: Score) -> str:
    own, floor = score.players["picture"], best_other(score.players)
    low, high = own.interval
    label = f"{percent(own.mean)}, 95 % interval {percent(low)} to {percent(high)}"
    blind, mark = 0.0, ""
    if floor is not None:
        player, blind = floor
        label += f"; best without looking {percent(blind)} ({PLAYERS[player]})"
        mark = (
            f'<line class=floor x1="{_SHARES.percent(blind)}" x2="{_SHARES.percent(blind)}" '
            "y1=0 y2=24 />"
        )
    earned = max(0.0, own.mean - blind)
    caps = "".join(
        f'<line class=whisker x1="{_SHARES.percent(x)}" x2="{_SHARES.percent(x)}" y1=8 y2=16 />'
        for x in (low, high)
    )
    return (
        f"<li{' class=control' if report.random_tower else ''}>"
        f"<span class=name>{escape(model_title(report))}</span>"
        f'<svg class=bar role=img aria-label="{escape(label)}"><title>{escape(label)}</title>'
        '<rect class=track width="100%" y=2 height=20 />'
        f'<rect class=blind width="{_SHARES.percent(min(blind, own.mean))}" y=2 height=20 />'
        f'<rect class=earned x="{_SHARES.percent(blind)}" width="{_SHARES.percent(earned)}" y=2 '
        f"height=20 />{mark}"
        f'<line class=whisker x1="{_SHARES.percent(low)}" x2="{_SHARES.percent(high)}" '
        f"y1=12 y2=12 />{caps}</svg>"
        f"<span class=value><b>{percent(own.mean)}</b> <small>{100 * low:.1f}&#8239;–&#8239;"
        f"{100 * high:.1f}</small></span></li>"
    )


def _scale() -> str:
    anchors = {0: "start", 100: "end"}
    labels = "".join(
        f'<text x="{tick}%" y=12 text-anchor={anchors.get(tick, "middle")}>{tick}{unit}</text>'
        for tick, unit in ((0, ""), (25, ""), (50, ""), (75, ""), (100, " %"))
    )
    return f"<svg class=scale aria-hidden=true>{labels}</svg>"


def stage_rows(lines: dict[str, list[Line]]) -> str:
    """The table: a group a benchmark, a row a stage, a column a player."""
    players = "".join(f"<th scope=col class=n>{head}</th>" for head in OTHERS.values())
    groups = "".join(_group(name, models) for name, models in lines.items())
    return (
        "<p class=lead>Mean score with its 95 % bootstrap interval, beside players that do not see "
        "the picture; a dash stands for one that cannot play.</p>"
        '<div class=scroll role=region aria-label="Stage table" tabindex=0><table>'
        "<thead><tr><th scope=col>stage</th><th scope=col class=n>score</th>"
        f"<th scope=col class=n>95 % interval</th>{players}</tr></thead>{groups}</table></div>"
    )


def _group(name: str, models: list[Line]) -> str:
    questions = models[0][1].questions
    head = (
        f"<tbody><tr class=group><th scope=rowgroup colspan={3 + len(OTHERS)}>{escape(name)} "
        f"<small>{questions:,} questions</small></th></tr>"
    )
    return head + "".join(_row(*model) for model in models) + "</tbody>"


def _row(report: Scores, score: Score) -> str:
    own = score.players["picture"]
    cells = "".join(f"<td class=n>{mean_of(score.players.get(player))}</td>" for player in OTHERS)
    low, high = own.interval
    return (
        f"<tr><th scope=row>{escape(model_title(report))}</th><td class=n><b>{percent(own.mean)}"
        f"</b></td><td class=n>{100 * low:.1f}&#8239;–&#8239;{100 * high:.1f}</td>{cells}</tr>"
    )
