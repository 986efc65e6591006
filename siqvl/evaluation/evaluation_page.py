"""One page about one checkpoint: its scores, by player and type of question, and some answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from siqvl.data.schema import Row
from siqvl.evaluation.scoring.scores import OTHERS, Result, Score, Scores, between, mean_of
from siqvl.recipe import Player
from siqvl.stages import STAGES

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from PIL.Image import Image


class Sample(NamedTuple):
    """An answer of the model and the picture it is about."""

    prediction: Row
    image: Image | None


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:64rem;padding:0 1rem;
  color:#1b1f24;background:#fff}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #d8dee4;white-space:nowrap}
td:first-child,th:first-child{text-align:left}
small{color:#57606a}
.bar{background:#eaeef2;height:.5rem;min-width:6rem}
.bar i{background:#2a78d6;display:block;height:100%}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:1rem}
.card{border:1px solid #d8dee4;border-radius:.5rem;padding:.7rem;break-inside:avoid}
.card img{width:100%;background:#eaeef2}
.card p{margin:.3rem 0;overflow-wrap:anywhere;white-space:pre-line}
.right{border-left:.35rem solid #1a7f4b}
.wrong{border-left:.35rem solid #b3402a}
"""


def write_report(report: Scores, samples: list[Sample], path: Path) -> None:
    """Write `report.html`; self-contained, nothing is fetched from elsewhere."""
    stage = STAGES[report.stage].title + (", random tower" if report.random_tower else "")
    rows = "".join(
        f"<tr><th scope=row>{escape(score.benchmark)}{_cells(score.questions, score.players)}"
        for score in report.scores
    )
    types = "".join(_types(score) for score in report.scores if score.types)
    cards = "".join(_card(sample) for sample in samples)
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>SiQ-VL after {escape(stage)}</title><style>{STYLE}</style>"
        f"<h1>After {escape(stage)}</h1>{_table('benchmark', rows)}"
        "<p><small>Mean scores; small, their 95 % bootstrap intervals. The columns on the right "
        "are players that cannot see the picture.</small></p>"
        f"{types}<h2>Pictures</h2><div class=cards>{cards}</div>"
        f"<p><small>checkpoint {report.checkpoint_hash[:12]}</small></html>\n",
        encoding="utf-8",
    )


def pick_samples(predictions: pa.Table, dataset: Dataset, count: int) -> list[Sample]:
    """Evenly spaced answers with their first picture, so that none is picked by its outcome.

    Args:
        predictions: one benchmark's, those of `picture` first and in the order of `dataset`.
    """
    step = max(1, len(dataset) // count)
    return [
        Sample(
            predictions.slice(index, 1).to_pylist()[0],
            next(iter(dataset[index]["images"]), None),
        )
        for index in range(0, len(dataset), step)
    ][:count]


def _types(score: Score) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(kind)}{_cells(one.questions, one.players)}"
        for kind, one in score.types.items()
    )
    name = escape(score.benchmark)
    return f"<h2>{name} by type of question</h2>{_table('type', rows)}"


def _table(what: str, rows: str) -> str:
    heads: Iterable[str] = (what, "questions", "score", "", *OTHERS.values())
    head = "".join(f"<th scope=col>{name}" for name in heads)
    return f"<div class=wide><table><tr>{head}{rows}</table></div>"


def _cells(questions: int, players: dict[Player, Result]) -> str:
    own = players["picture"]
    others = "".join(f"<td>{mean_of(players.get(player))}" for player in OTHERS)
    return (
        f"<td>{questions:,}<td>{mean_of(own)}<br><small>{between(own)}</small>"
        f"<td><div class=bar><i style='width:{100 * own.mean:.1f}%'></i></div>{others}"
    )


def _card(sample: Sample) -> str:
    row = sample.prediction
    picture = f"<img alt='' src='{_inline(sample.image)}'>" if sample.image else ""
    outcome = {0.0: "wrong", 1.0: "right"}.get(row["score"], f"{row['score']:.0%} right")
    border = "right" if row["score"] >= 0.5 else "wrong"
    answer = row["generation"] or row["answer"]
    gold = " / ".join(dict.fromkeys(row["answers"]))
    return (
        f"<div class='card {border}'>{picture}<p>{escape(row['question'])}</p>"
        f"<p><b>{escape(answer) or '(nothing)'}</b></p><p>{outcome}; gold: {escape(gold)}</p></div>"
    )


def _inline(image: Image) -> str:
    buffer = io.BytesIO()
    image = image.convert("RGB")
    image.thumbnail((256, 256))
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
