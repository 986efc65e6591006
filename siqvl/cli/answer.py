"""`siqvl answer`: a checkpoint's answers to a whole data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from siqvl.cli.source_options import source_of, source_options

if TYPE_CHECKING:
    from siqvl.answers.answer_all import Done, How
    from siqvl.answers.question_source import Questions

KINDS = ("evaluation", "sft", "preference")
INTERRUPTED = 130  # as a shell says of a program that Ctrl-C ended


@click.command()
@click.argument("checkpoint")
@click.argument("what")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The table of answers: .parquet, .jsonl or .csv.",
)
@click.option("--question", help="Is asked about every row; pictures without a table need it.")
@click.option("--suffix", default="", help="Appended to every question, as in `prompt_suffix`.")
@click.option("--kind", type=click.Choice(KINDS), help="What its rows are.  [default: what fits]")
@source_options
@click.option("--skip", type=click.IntRange(0), default=0, help="Rows to pass over first.")
@click.option("--limit", type=click.IntRange(1), help="Rows to answer at most.  [default: all]")
@click.option("--max-new-tokens", type=int, help="Of an answer.  [default: as when it is served]")
@click.option("--temperature", type=float, default=0.0, show_default=True)
@click.option("--top-p", type=float, default=1.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Answers in the making at once.  [default: as when it is served]",
)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32")
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="An HTML page of the first rows.  [default: the table's name with .html]",
)
@click.option(
    "--page-rows",
    type=click.IntRange(0, 1000),
    default=48,
    show_default=True,
    help="Rows on the page; 0 writes none.",
)
@click.option("--fresh", is_flag=True, help="Throw away what an earlier run left.")
@click.option("--tracking-uri", help="The MLflow store of models:/… and runs:/….")
def answer(
    checkpoint: str,
    what: str,
    output: Path,
    question: str | None,
    kind: str | None,
    page: Path | None,
    page_rows: int,
    fresh: bool,
    tracking_uri: str | None,
    **options: Any,
) -> None:
    """Answer every row of WHAT with CHECKPOINT, and write a table and a page.

    CHECKPOINT is a folder, a hub id, models:/NAME@ALIAS or runs:/ID. WHAT is whatever `siqvl look`
    reads, whether its answers are known or not, or a folder of pictures with `--question`.

    The same command goes on with what an interrupted run left, and asks again about rows that have
    changed since. A row that cannot be answered has an `error` in the table and stops nothing. Exit
    code 1: nothing could be answered.
    """
    from tqdm import tqdm

    from siqvl.answers.answer_all import answer_all
    from siqvl.answers.answers_page import render_answers, summary
    from siqvl.answers.write_answers import check_ending, check_place
    from siqvl.checkpoint import check_outside
    from siqvl.page.render import write_page
    from siqvl.registry.resolve import resolve_checkpoint

    check_ending(output)
    page = (page or output.with_suffix(".html")) if page_rows else None
    check_place(what, output, page)
    how_given = {name: options.pop(name) for name in _HOW}
    questions = _questions(what, kind, question, options)
    folder = resolve_checkpoint(checkpoint, tracking_uri=tracking_uri)
    check_outside(output, folder, "-o")
    if page is not None:
        check_outside(page, folder, "--page")
    how = _how(folder, how_given)
    with tqdm(desc="answer", unit=" answers", mininterval=0.5) as bar:
        try:
            done = answer_all(questions, folder, output, how, shown=page_rows, fresh=fresh, bar=bar)
        except KeyboardInterrupt:
            bar.close()
            click.echo("interrupted; the same command goes on with what there is", err=True)
            raise SystemExit(INTERRUPTED) from None
    _say(done)
    click.echo(f"{summary(done)}: {output}")
    if page is not None:
        write_page(page, render_answers(what, checkpoint, str(output), how, done), "--page")
        click.echo(str(page))
    if done.errors.total() == done.rows:
        raise SystemExit(1)


_HOW = ("max_new_tokens", "batch_size", "temperature", "top_p", "seed", "precision")


def _questions(
    what: str, kind: str | None, question: str | None, options: dict[str, Any]
) -> Questions:
    from siqvl.answers.question_source import questions_of
    from siqvl.data.schema import RowKind
    from siqvl.errors import UserError

    if what.endswith((".yaml", ".yml")):
        raise UserError(f"{what} is a recipe, which may name several data sets: name one of them")
    if not what:
        raise UserError("there is no data set: give a file, a folder or a hub id")
    suffix, skip, limit = (options.pop(name) for name in ("suffix", "skip", "limit"))
    given = options | {"prompt_suffix": suffix, "skip": skip, "max_samples": limit}
    source = source_of(what, given | {"sample": "first"})
    return questions_of(source, RowKind(kind) if kind else None, question)


def _how(checkpoint: Path, given: dict[str, Any]) -> How:
    """How answers are written: as is said, else as when the checkpoint is served."""
    from siqvl.answers.answer_all import How
    from siqvl.checkpoint import read_card
    from siqvl.serving.settings import ServingSettings

    served = ServingSettings.of(read_card(checkpoint).recipe)
    for name in ("max_new_tokens", "batch_size"):
        given[name] = getattr(served, name) if given[name] is None else given[name]
    return How(**given)


def _say(done: Done) -> None:
    """What is no answer goes to standard error."""
    if done.kept:
        click.echo(f"{done.kept:,} rows were answered already", err=True)
    if done.changed:
        click.echo(f"{done.changed:,} rows have changed since, and are asked again", err=True)
    for reason, rows in done.errors.most_common():
        click.echo(f"{rows:,} × {reason}", err=True)
    if done.tokens:
        click.echo(f"{done.tokens:,} tokens, {done.rate:,.0f} a second", err=True)
