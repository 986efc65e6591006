"""`siqvl chat`: a conversation with a checkpoint, or one question of a script."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from siqvl.chat.open_chat import Chat

INTERRUPTED = 130  # as a shell says of a program that Ctrl-C ended


@click.command()
@click.argument("checkpoint")
@click.argument("question", required=False)
@click.option("--image", "images", multiple=True, metavar="FILE", help="A picture; several may be.")
@click.option("--allow-urls", is_flag=True, help="Fetch pictures from public addresses, too.")
@click.option("--system", help="What the model is told first.  [default: as it was trained]")
@click.option("--max-new-tokens", type=int, help="Of an answer.  [default: as when it is served]")
@click.option("--temperature", type=float, default=0.0, show_default=True)
@click.option("--top-p", type=float, default=1.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32")
@click.option("--json", "as_json", is_flag=True, help="One question: answer and figures as JSON.")
@click.option("--tracking-uri", help="The MLflow store of models:/… and runs:/….")
def chat(
    checkpoint: str,
    question: str | None,
    images: tuple[str, ...],
    as_json: bool,
    tracking_uri: str | None,
    **options: Any,
) -> None:
    """Talk to CHECKPOINT: a folder, a hub id, models:/NAME@ALIAS or runs:/ID.

    In a terminal it is a conversation; /help lists what can be typed. With a QUESTION, or one that
    comes through a pipe, standard output holds the answer alone. Exit code 1: it could not be
    answered, and why is said on standard error; 130: Ctrl-C.
    """
    from siqvl.chat.open_chat import open_chat
    from siqvl.errors import UserError
    from siqvl.registry.resolve import resolve_checkpoint

    if question is None and not sys.stdin.isatty():
        question = _piped()
    if question is not None and not question.strip():
        raise UserError("there is no question: give it after the checkpoint, or through a pipe")
    if as_json and question is None:
        raise UserError("`--json` is for one question: give it after the checkpoint")
    try:
        folder = resolve_checkpoint(checkpoint, tracking_uri=tracking_uri)
        with open_chat(folder, **options) as found:
            if question is None:
                _talk(found, images)
            else:
                _ask(found, images, question, as_json)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _piped() -> str:
    from siqvl.errors import UserError

    try:
        return sys.stdin.read().rstrip("\n")
    except UnicodeDecodeError:
        raise UserError("the question on standard input is not UTF-8 text") from None


def _ask(found: Chat, images: tuple[str, ...], question: str, as_json: bool) -> None:
    from siqvl.chat.one_question import ask_once

    pictures = [found.pictures.read(place) for place in images]
    spoken = ask_once(
        found.engine,
        found.conversation,
        pictures,
        question,
        found.sampling,
        sys.stdout,
        as_json=as_json,
    )
    if spoken.finish == "length":
        limit = found.sampling.max_new_tokens
        click.echo(f"cut at {limit:,} tokens (--max-new-tokens)", err=True)


def _talk(found: Chat, images: tuple[str, ...]) -> None:
    from siqvl.chat.line_editing import edited_lines
    from siqvl.chat.terminal import Terminal

    is_plain = bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
    terminal = Terminal(
        found.engine,
        found.conversation,
        found.pictures,
        found.sampling,
        sys.stdout,
        is_plain=is_plain,
    )
    click.echo(f"{found.title}; /help lists what can be typed")
    with edited_lines():
        terminal.show(images)
        terminal.run()
