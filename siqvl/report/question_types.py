"""Scores by type of question: a group a benchmark, a row a type, a column a stage."""

from __future__ import annotations

from html import escape

from siqvl.evaluation.scoring.scores import Score, percent
from siqvl.recipe import Stage
from siqvl.report.score_charts import Line, best_other
from siqvl.stages import STAGES

#: One benchmark by stage; the control of stage 1 is not taken apart by type.
Column = dict[Stage, Score]


def type_table(lines: dict[str, list[Line]]) -> str:
    """Nothing when no benchmark tells the types of its questions."""
    groups = ""
    for name, models in lines.items():
        scores = {model.stage: score for model, score in models if not model.random_tower}
        if any(score.types for score in scores.values()):
            groups += _group(name, scores)
    stages = "".join(f"<th scope=col class=n>{escape(spec.title)}</th>" for spec in STAGES.values())
    return groups and (
        "<p class=lead>Mean score; the last column is the best that a player without the picture "
        "reaches on these questions, at the last stage that answered them.</p>"
        '<div class=scroll role=region aria-label="Scores by type of question" tabindex=0>'
        "<table><thead><tr><th scope=col>type</th><th scope=col class=n>questions</th>"
        f"{stages}<th scope=col class=n>best without looking</th></tr></thead>{groups}</table>"
        "</div>"
    )


def _group(name: str, scores: Column) -> str:
    types = dict.fromkeys(kind for score in scores.values() for kind in score.types)
    head = f"<th scope=rowgroup colspan={3 + len(STAGES)}>{escape(name)}</th>"
    rows = "".join(_row(kind, scores) for kind in types)
    return f"<tbody><tr class=group>{head}</tr>{rows}</tbody>"


def _row(kind: str, scores: Column) -> str:
    found = {stage: score.types[kind] for stage, score in scores.items() if kind in score.types}
    means = {stage: entry.players["picture"].mean for stage, entry in found.items()}
    cells = "".join(_cell(means.get(stage)) for stage in STAGES)
    last = next(found[stage] for stage in reversed(STAGES) if stage in found)
    floor = best_other(last.players)
    return (
        f"<tr><th scope=row>{escape(kind)}</th><td class=n>{last.questions:,}</td>{cells}"
        f"<td class=n>{percent(floor[1] if floor else None)}</td></tr>"
    )


def _cell(mean: float | None) -> str:
    if mean is None:
        return "<td class=n>–</td>"
    return f'<td class="n tint" style="--share:{100 * mean:.0f}%">{percent(mean)}</td>'
