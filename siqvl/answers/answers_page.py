"""The page of a table of answers: how they came about, errors, the first rows with pictures."""

from __future__ import annotations

from siqvl.answers.answer_all import Done, How
from siqvl.page.render import render


def render_answers(what: str, checkpoint: str, out: str, how: How, done: Done) -> str:
    """Returns the text of the page.

    Args:
        what: the data set, as it was asked for; `checkpoint` and `out` too.
    """
    errors = done.errors.most_common()
    return render(
        "answers/answers_page.html.jinja",
        what=what,
        checkpoint=checkpoint,
        headline=summary(done),
        facts=[(name, text) for name, text in _facts(out, how, done) if text],
        errors=errors,
        wrong=done.wrong,
        shown=done.shown,
        rows=done.rows,
    )


def summary(done: Done) -> str:
    """`1,000 answers`, `997 answers, and 3 rows with errors`."""
    wrong = done.errors.total()
    answers = done.rows - wrong
    said = f"{answers:,} answer{'' if answers == 1 else 's'}"
    return said + (f", and {wrong:,} row{'' if wrong == 1 else 's'} with errors" if wrong else "")


def _facts(out: str, how: How, done: Done) -> list[tuple[str, str]]:
    drawn = f"drawn at temperature {how.temperature:g}, top-p {how.top_p:g}, seed {how.seed}"
    return [
        ("table", out),
        ("tokens", f"{'the likeliest each time' if not how.temperature else drawn}"),
        ("at most", f"{how.max_new_tokens:,} tokens an answer"),
        ("arithmetic", f"{how.precision}, {how.batch_size:,} answers at once"),
        ("kept", f"{done.kept:,} answers of an earlier run" if done.kept else ""),
        ("changed", f"{done.changed:,} rows since an earlier run" if done.changed else ""),
        ("speed", f"{done.rate:,.0f} tokens/s" if done.tokens else ""),
    ]
