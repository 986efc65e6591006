"""One page to look at prepared data: counts, statistics, and a few rows with their pictures."""

from __future__ import annotations

import base64
import html
from string import Template
from typing import Any

from siqvl.data.manifest import Manifest, Spread
from siqvl.data.schema import Row, RowKind

EXAMPLES = 12
SHOWN_CHARACTERS = 600

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Prepared $kind rows</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1e; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left;
  border-bottom: 1px solid #ddd } td.n { text-align: right; font-variant-numeric: tabular-nums }
.rows { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem }
.row { border: 1px solid #ddd; border-radius: 6px; padding: .8rem; overflow-wrap: anywhere }
.row img { height: 9rem; max-width: 100%; object-fit: contain; border: 1px solid #ddd }
.row p { margin: .4rem 0; white-space: pre-wrap } .role { color: #63636b; font-size: .85rem }
code { font-size: .85rem }
</style></head><body>
<h1>Prepared $kind rows</h1>
<p>$rows rows with $images images, seed $seed. Fingerprint <code>$fingerprint</code></p>
<h2>Sources</h2>$by_source
<h2>Left out</h2>$left_out
<h2>Sizes</h2>$sizes
<h2>Most frequent answers</h2>$answers
<h2>Examples</h2><div class="rows">$examples</div>
</body></html>
""")


def render_report(
    manifest: Manifest, examples: list[Row], refused: dict[str, dict[str, str]]
) -> str:
    """The page. `examples` are stored rows (images as `{"bytes": …}`)."""
    left_out = {**manifest.quarantined, **manifest.left_out}
    left_out = {reason: count for reason, count in left_out.items() if count}
    return PAGE.substitute(
        kind=manifest.kind.value,
        rows=f"{manifest.rows:,}",
        images=f"{manifest.images:,}",
        seed=manifest.seed,
        fingerprint=manifest.fingerprint,
        by_source=_counts(manifest.rows_by_source.items()),
        left_out=_counts(left_out.items()) if left_out else "<p>Nothing: every row was good.</p>",
        sizes=_sizes(manifest),
        answers=_counts(manifest.top_answers),
        examples="".join(_example(row, manifest.kind) for row in examples),
    )


def _counts(items: Any) -> str:
    rows = (f"<tr><td>{_text(name)}<td class=n>{count:,}" for name, count in items)
    return f"<table>{''.join(rows)}</table>"


def _sizes(manifest: Manifest) -> str:
    spreads: dict[str, Spread | None] = {
        "image width (pixels)": manifest.image_width,
        "image height (pixels)": manifest.image_height,
        "prompt (characters)": manifest.prompt_characters,
        "answer (characters)": manifest.answer_characters,
    }
    head = "<tr><th><th>minimum<th>median<th>mean<th>95 %<th>maximum"
    rows = (
        f"<tr><td>{name}"
        + "".join(
            f"<td class=n>{value:,}"
            for value in (spread.minimum, spread.median, spread.mean, spread.p95, spread.maximum)
        )
        for name, spread in spreads.items()
        if spread
    )
    return f"<table>{head}{''.join(rows)}</table>"


def _example(row: Row, kind: RowKind) -> str:
    pictures = "".join(_picture(image["bytes"]) for image in row["images"])
    if kind is RowKind.EVALUATION:
        parts = [("question", row["question"]), ("answers", " | ".join(row["answers"]))]
    else:
        completions = ["completion"] if kind is RowKind.SFT else ["chosen", "rejected"]
        parts = [(turn["role"], turn["content"]) for turn in row["prompt"]]
        parts += [(name, turn["content"]) for name in completions for turn in row[name]]
    texts = "".join(f"<p><span class=role>{name}</span>\n{_text(text)}</p>" for name, text in parts)
    return f"<div class=row>{pictures}{texts}<code>{_text(row['id'])}</code></div>"


def _picture(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _text(text: str) -> str:
    short = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"
    return html.escape(short)
