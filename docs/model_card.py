"""Renders the model card of a checkpoint as a page, and photographs it for docs/elsewhere.md.

python -m docs.model_card CHECKPOINT [-o card.html] [--picture]

The card is what `siqvl publish --dry-run` shows. `--picture` writes docs/images/model_card.png, and
needs Chromium (Debian's package `chromium`).
"""

from __future__ import annotations

import html
from pathlib import Path

import click
from markdown_it import MarkdownIt

from siqvl.publish.licences import FRONT_MATTER
from siqvl.publish.publication import Target, Wanted, publish
from siqvl.registry.resolve import resolve_checkpoint

HEIGHT = 1500
STYLE = """
body { max-width: 1240px; margin: 2rem auto; padding: 0 2rem; color: #1f2328; background: #fff;
       font: 16px/1.5 system-ui, sans-serif }
table { border-collapse: collapse; display: block; overflow: auto; margin: 1rem 0 }
th, td { border: 1px solid #d1d9e0; padding: 6px 9px; white-space: nowrap }
tr:nth-child(2n) { background: #f6f8fa }
pre { background: #f6f8fa; padding: 1rem; overflow: auto; border-radius: 6px }
code { font: 85% ui-monospace, monospace; background: #f6f8fa; padding: .2em .4em }
pre code { padding: 0 }
h1, h2 { border-bottom: 1px solid #d1d9e0; padding-bottom: .3em }
"""


def page_of(card: str) -> str:
    """A README.md -> HTML, its metadata in a box that is folded, as the hub shows it."""
    head = FRONT_MATTER.match(card)
    metadata, text = (head[1], card[head.end() :]) if head else ("", card)
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    box = f"<details><summary>metadata</summary><pre>{html.escape(metadata)}</pre></details>"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Model card</title>"
        f"<style>{STYLE}</style><body>{box}{body}</body></html>\n"
    )


@click.command()
@click.argument("checkpoint")
@click.option("--name", default="me/siqvl-tiny", show_default=True, help="The hub id it shows.")
@click.option("-o", "--output", default="card.html", show_default=True, type=Path)
@click.option("--picture", is_flag=True, help="Write docs/images/model_card.png, too.")
def main(checkpoint: str, name: str, output: Path, picture: bool) -> None:
    """Write the page."""
    wanted = Wanted(Target(name, None), load=False)
    made = publish(resolve_checkpoint(checkpoint), wanted, dry_run=True)
    output.write_text(page_of(made.card), encoding="utf-8")
    click.echo(str(output))
    if picture:
        from docs.screenshots import browser

        with browser() as page:
            address = output.resolve().as_uri()
            page.take("model_card", address, ready="How they were asked", height=HEIGHT)


if __name__ == "__main__":
    main()
