"""The page of answers: the first rows with their pictures, errors, and no markup of theirs."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

from siqvl.answers.answer_all import Done
from siqvl.answers.answers_page import render_answers, summary
from tests.answers.conftest import HOW, asked_rows, write_rows


def test_it_shows_rows_pictures_and_errors(run: Callable[..., Done], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    rows = asked_rows(folder, 6)
    rows[3]["question"] = "<script>alert(1)</script>"
    rows[5]["images"] = ["images/none.png"]
    done = run(write_rows(folder, rows), shown=4)
    text = render_answers("a set", "a checkpoint", "out.jsonl", HOW, done)
    assert "5 answers, and 1 row with errors" in text
    assert text.count("<article") == 5  # the first four, and one of the others with an error
    assert text.count('src="data:image/png;base64,') == 3  # of rows 1 and 2
    assert "no picture at images/none.png" in text
    assert "<script>" not in text
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: found.append(tag)  # type: ignore[method-assign]
    parser.feed(text)
    assert "script" not in found


def test_a_run_that_goes_on_shows_the_same_rows(run: Callable[..., Done], table: Path) -> None:
    first = run(table, shown=4)
    again = run(table, shown=4)
    assert again.kept == 11
    assert again.shown == first.shown


def test_the_summary_counts() -> None:
    assert summary(Done(rows=1)) == "1 answer"
    assert summary(Done(rows=1200)) == "1,200 answers"
