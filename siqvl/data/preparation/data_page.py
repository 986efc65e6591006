"""One page to look at prepared data: counts, statistics, and a few rows with their pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from string import Template

from siqvl.data.manifest import Manifest, Spread
from siqvl.data.schema import Row, RowKind

EXAMPLES = 12
SHOWN_CHARACTERS = 600
SHOWN_BYTES, SHOWN_PIXELS = 100_000, 640  # the page goes into a Flyte Deck, so it stays small
CHART_WIDTH, CHART_HEIGHT = 480, 120  # units of the drawing, which grows with the page

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Prepared $kind rows</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1e; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.wide { overflow-x: auto }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left;
  border-bottom: 1px solid #ddd; vertical-align: top }
.example { overflow-wrap: anywhere; min-width: 9rem }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.charts, .rows { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)) }
.charts { margin-top: 1.5rem }
figure { margin: 0; break-inside: avoid } figcaption { font-size: .9rem }
svg { width: 100%; height: auto } svg rect { fill: #3a6ea5 } svg text { font-size: 14px }
.row { border: 1px solid #ddd; border-radius: 6px; padding: .8rem; overflow-wrap: anywhere;
  break-inside: avoid }
.row img { height: 9rem; max-width: 100%; object-fit: contain; border: 1px solid #ddd }
.row p { margin: .4rem 0; white-space: pre-wrap } .role, .example { color: #55555c;
  font-size: .85rem } code { font-size: .85rem; overflow-wrap: anywhere }
@media print { body { margin: 0; max-width: none } }
</style></head><body>
<h1>Prepared $kind rows</h1>
<p>$rows rows with $images images ($distinct distinct, $shared of them in several rows), seed $seed.
Fingerprint <code>$fingerprint</code></p>
<h2>Sources</h2>$by_source
<h2>Bad rows</h2>$quarantined
<h2>Good rows left out</h2>$left_out
<h2>Pictures of benchmarks</h2>$leaks
<h2>Sizes</h2>$sizes
<div class="charts">$charts</div>
<h2>Most frequent answers</h2>$answers
<h2>Examples</h2><div class="rows">$examples</div>
</body></html>
""")

Lines = dict[str, dict[str, str]]


def render_report(manifest: Manifest, examples: list[Row], refused: Lines) -> str:
    """The page, which needs no other file and no script.

    Args:
        manifest: what is shown.
        examples: stored rows, as `example` gives them.
        refused: reason -> the first line of the quarantine list with it.
    """
    return PAGE.substitute(
        kind=manifest.kind.value,
        rows=f"{manifest.rows:,}",
        images=f"{manifest.images:,}",
        distinct=f"{manifest.distinct_images:,}",
        shared=f"{manifest.shared_images:,}",
        seed=manifest.seed,
        fingerprint=manifest.fingerprint,
        by_source=_counts(manifest.rows_by_source.items()),
        quarantined=_reasons(manifest.quarantined, refused) or "<p>None: every row was good.</p>",
        left_out=_reasons(manifest.left_out, refused) or "<p>None.</p>",
        leaks=_leaks(manifest),
        sizes=_sizes(_spreads(manifest)),
        charts="".join(_chart(name, spread) for name, spread in _spreads(manifest).items()),
        answers=_counts(manifest.top_answers),
        examples="".join(_example(row, manifest.kind) for row in examples),
    )


def _spreads(manifest: Manifest) -> dict[str, Spread]:
    spreads = {
        "image width (pixels)": manifest.image_width,
        "image height (pixels)": manifest.image_height,
        "prompt (characters)": manifest.prompt_characters,
        "answer (characters)": manifest.answer_characters,
    }
    return {name: spread for name, spread in spreads.items() if spread}


def _table(head: str, rows: Iterable[str]) -> str:
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _counts(items: Iterable[tuple[str, int]]) -> str:
    return _table("", (f"<tr><td>{short_text(name)}<td class=n>{count:,}" for name, count in items))


def _reasons(counts: dict[str, int], refused: Lines) -> str:
    """Reason, rows, and the first row it was; nothing without any."""
    rows = []
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        line = refused.get(reason, {"id": "", "detail": ""})
        example = f"<code>{short_text(line['id'])}</code> {short_text(line['detail'])}"
        row = f"<tr><td>{short_text(reason)}<td class=n>{count:,}<td class=example>{example}"
        rows.append(row)
    head = "<tr><th>reason<th class=n>rows<th>first of them"
    return _table(head, rows) if rows else ""


def _leaks(manifest: Manifest) -> str:
    if not manifest.leaks:
        return "<p>No benchmark was compared with.</p>"
    head = "<tr><th>benchmark<th class=n>rows with its pictures<th class=n>with similar ones"
    rows = (
        f"<tr><td>{short_text(name)}<td class=n>{rows['exact']:,}<td class=n>{rows['near']:,}"
        for name, rows in manifest.leaks.items()
    )
    return _table(head, rows)


def _sizes(spreads: dict[str, Spread]) -> str:
    names = ("minimum", "median", "mean", "95 %", "maximum")
    head = "<tr><th>" + "".join(f"<th class=n>{name}" for name in names)
    rows = (
        f"<tr><td>{name}"
        + "".join(
            f"<td class=n>{value:,}"
            for value in (spread.minimum, spread.median, spread.mean, spread.p95, spread.maximum)
        )
        for name, spread in spreads.items()
    )
    return _table(head, rows)


def _chart(name: str, spread: Spread) -> str:
    """A histogram; its last bar holds what is above the 99th percentile."""
    highest = max(height for _, _, height in spread.bins)
    step = CHART_WIDTH / len(spread.bins)
    bars = "".join(
        f'<rect x="{place * step:.1f}" y="{CHART_HEIGHT * (1 - height / highest):.1f}" '
        f'width="{step * 0.9:.1f}" height="{CHART_HEIGHT * height / highest:.1f}">'
        f"<title>{low:,} to {high:,}: {height:,}</title></rect>"
        for place, (low, high, height) in enumerate(spread.bins)
    )
    last = spread.bins[-1][0]
    labels = (
        f'<text x="0" y="{CHART_HEIGHT + 18}">{spread.minimum:,}</text>'
        f'<text x="{CHART_WIDTH}" y="{CHART_HEIGHT + 18}" text-anchor="end">'
        f"{last:,} to {spread.maximum:,}</text>"
    )
    title = f"{name}: from {spread.minimum:,} to {spread.maximum:,}, median {spread.median:,}"
    return (
        f'<figure><svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT + 24}" role="img" '
        f'aria-label="{title}">{bars}{labels}</svg><figcaption>{name}</figcaption></figure>'
    )


def _example(row: Row, kind: RowKind) -> str:
    pictures = "".join(picture(image["bytes"]) for image in row["images"])
    if kind is RowKind.EVALUATION:
        parts = [("question", row["question"]), ("answers", " | ".join(row["answers"]))]
    else:
        completions = ["completion"] if kind is RowKind.SFT else ["chosen", "rejected"]
        parts = [(turn["role"], turn["content"]) for turn in row["prompt"]]
        parts += [(name, turn["content"]) for name in completions for turn in row[name]]
    texts = "".join(
        f"<p><span class=role>{name}</span>\n{short_text(text)}</p>" for name, text in parts
    )
    return f"<div class=row>{pictures}{texts}<code>{short_text(row['id'])}</code></div>"


def example(row: Row) -> Row:
    """A stored row as it is kept for the page, with smaller copies of large pictures."""
    return row | {"images": [{"bytes": _small(image["bytes"])} for image in row["images"]]}


def _small(data: bytes) -> bytes:
    import io

    from PIL import Image

    if len(data) <= SHOWN_BYTES:
        return data
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def picture(data: bytes) -> str:
    """An image element that holds a PNG or JPEG file itself."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def short_text(text: str) -> str:
    """Text for a page: escaped, and cut where it is long."""
    short = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"
    return html.escape(short)
