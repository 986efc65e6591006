"""A card a question: the picture, what every stage answered, and what is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from siqvl.evaluation.scoring.scores import Scores
from siqvl.page.icons import mark
from siqvl.report.page_questions import Prediction, Sample
from siqvl.report.score_charts import model_title

SHOWN_CHARACTERS = 240

#: `data:` URIs by benchmark and id.
Pictures = Mapping[tuple[str, str], Sequence[str]]


def sample_cards(samples: Sequence[Sample], pictures: Pictures) -> str:
    """All of them, in the order in which they were picked."""
    if not samples:
        return "<p class=note>No benchmark was answered in words.</p>"
    return f'<div class="grid">{"".join(_card(sample, pictures) for sample in samples)}</div>'


def _card(sample: Sample, pictures: Pictures) -> str:
    row = sample.question
    shown = pictures.get((row["benchmark"], row["id"]), [])
    images = "".join(
        f'<img src="{uri}" alt="Picture {number} of the question below">'
        for number, uri in enumerate(shown, start=1)
    )
    kind = f" · {escape(row['type'])}" if row["type"] else ""
    answers = "".join(_answer(scores, given) for scores, given in sample.answers)
    return (
        f"<article class='card sample'><div class=picture>{images}</div><div class=words>"
        f"<p class=small>{escape(row['benchmark'])}{kind}</p>"
        f"<h3>{_cut(row['question'])}</h3>"
        f"<p class=gold><span class=small>right answer</span> {_cut(_gold(row['answers']))}</p>"
        f"<ul class=answers>{answers}</ul></div></article>"
    )


def _gold(answers: Sequence[str]) -> str:
    """Different answers, once each, the most frequent first."""
    return " | ".join(answer for answer, _ in Counter(answers).most_common())


def _answer(scores: Scores, given: Prediction) -> str:
    score = given["score"]
    if score >= 1:
        outcome = mark("good", "right")
    elif score <= 0:
        outcome = mark("bad", "wrong")
    else:
        outcome = mark("part", f"{100 * score:.0f} % right")
    answer = _cut(given["answer"]) or "<i>no answer</i>"
    written = given["generation"].strip()
    reasoning = f"<p class=small>{_cut(written)}</p>" if written != given["answer"].strip() else ""
    return (
        f"<li><span class=small>{escape(model_title(scores))}</span>"
        f"<b>{answer}</b>{outcome}{reasoning}</li>"
    )


def _cut(text: str) -> str:
    """Escaped, and no longer than a card bears."""
    short = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip() + " …"
    return escape(short)
