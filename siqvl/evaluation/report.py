"""One page a person looks at: the scores and pictures with question, answer and gold."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from siqvl.data.schema import Row
from siqvl.evaluation.scores import OTHERS, Scores, between, mean_of
from siqvl.training.stages import STAGES

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

PICTURES = 12


class Sample(NamedTuple):
    """A prediction and the picture it is about."""

    prediction: Row
    image: Image | None


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;
  color:#1b1f24}
table{border-collapse:collapse;width:100%}
td,th{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #d8dee4}
td:first-child,th:first-child{text-align:left}
.bar{background:#eaeef2;height:.9rem;position:relative;min-width:8rem}
.bar i{background:#2a78d6;display:block;height:100%}
.bar b{position:absolute;top:-.2rem;bottom:-.2rem;width:2px;background:#1b1f24}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1rem}
.card{border:1px solid #d8dee4;border-radius:.5rem;padding:.7rem;break-inside:avoid}
.card img{width:100%;background:#eaeef2}
.card p{margin:.3rem 0;overflow-wrap:anywhere}
.right{border-left:.35rem solid #1a7f4b}
.wrong{border-left:.35rem solid #b3402a}
"""


def write_report(report: Scores, samples: list[Sample], path: Path) -> None:
    """Write `report.html`; self-contained, nothing is fetched from elsewhere."""
    lines = "".join(
        f"<tr><td>{escape(score.benchmark)}</td><td>{score.questions:,}</td>"
        f"<td>{mean_of(score.players['picture'])}<br>"
        f"<small>{between(score.players['picture'])}</small></td>"
        + "".join(f"<td>{mean_of(score.players.get(player))}</td>" for player in OTHERS)
        + "</tr>"
        for score in report.scores
    )
    cards = "".join(_card(sample) for sample in samples)
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>SiQ-VL after {report.stage}</title><style>{STYLE}</style>"
        f"<h1>After {escape(STAGES[report.stage].title)}</h1>"
        "<table><tr><th>benchmark<th>questions<th>score"
        f"{''.join(f'<th>{name}' for name in OTHERS.values())}</tr>{lines}</table>"
        f"<h2>Pictures</h2><div class=cards>{cards}</div>"
        f"<p><small>checkpoint {report.checkpoint_hash[:12]}</small></html>\n",
        encoding="utf-8",
    )


def pick_samples(predictions: list[Row], dataset: Dataset, count: int) -> list[Sample]:
    """Evenly spaced rows with their first picture, so that none is picked by its outcome."""
    step = max(1, len(predictions) // max(1, count))
    return [
        Sample(predictions[index], next(iter(dataset[index]["images"]), None))
        for index in range(0, len(predictions), step)
    ][:count]


def _card(sample: Sample) -> str:
    row = sample.prediction
    picture = f"<img alt='' src='{_inline(sample.image)}'>" if sample.image else ""
    outcome = "right" if row["correct"] else "wrong"
    return (
        f"<div class='card {outcome}'>{picture}<p>{escape(row['question'])}</p>"
        f"<p><b>{escape(row['generation']) or '(nothing)'}</b></p>"
        f"<p>{outcome}; gold: {escape(row['answers'][0])}</p></div>"
    )


def _inline(image: Image) -> str:
    buffer = io.BytesIO()
    image = image.convert("RGB")
    image.thumbnail((256, 256))
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
