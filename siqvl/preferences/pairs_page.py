"""One page to look at sampled pairs: how often the model was right, and a few pairs."""

from __future__ import annotations

import html
import json
from string import Template

from siqvl.data.preparation.data_page import picture, short_text
from siqvl.data.schema import Row
from siqvl.preferences.statistics import Sampling

PAGE = "sampling.html"
EXAMPLES = 12

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sampled pairs: $title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1e; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse }
td { padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.rows { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)) }
.row { border: 1px solid #ddd; border-radius: 6px; padding: .8rem; overflow-wrap: anywhere;
  break-inside: avoid }
.row img { height: 9rem; max-width: 100%; object-fit: contain; border: 1px solid #ddd }
.row p { margin: .4rem 0; white-space: pre-wrap; padding-left: .6rem; border-left: 4px solid #ddd }
.row .chosen { border-color: #2e7d32 } .row .rejected { border-color: #c62828 }
.role { color: #55555c; font-size: .85rem } code { font-size: .85rem; overflow-wrap: anywhere }
@media print { body { margin: 0; max-width: none } }
</style></head><body>
<h1>Sampled pairs: $title</h1>
<p>Written by the checkpoint <code>$checkpoint</code>, $samples completions a question at
temperature $temperature; judged by $scorer.</p>
<table>$counts</table>
<h2>Examples</h2><div class="rows">$examples</div>
</body></html>
""")


def render_page(title: str, sampling: Sampling, examples: list[Row]) -> str:
    """The page, which needs no other file and no script.

    Args:
        examples: stored preference rows, as `siqvl.data.preparation.data_page.example` gives them.
    """
    counts = {
        "questions asked": sampling.questions,
        "completions sampled": sampling.completions,
        "of these right, and brought to an end": sampling.right,
        "of these wrong": sampling.wrong,
        "of these cut off at the limit of tokens": sampling.never_ended,
        "questions with a pair": sampling.questions_with_pairs,
        "questions without a wrong completion": sampling.questions_without_wrong,
        "questions without a right completion": sampling.questions_without_right,
        "pairs kept": sampling.pairs,
    }
    return _PAGE.substitute(
        title=html.escape(title),
        checkpoint=sampling.checkpoint[:12],
        samples=sampling.settings.samples,
        temperature=sampling.settings.temperature,
        scorer=html.escape(sampling.scorer),
        counts="".join(f"<tr><td>{name}<td class=n>{value:,}" for name, value in counts.items()),
        examples="".join(_example(row) for row in examples) or "<p>None.</p>",
    )


def _example(row: Row) -> str:
    about = json.loads(row["meta"])
    pictures = "".join(picture(image["bytes"]) for image in row["images"])
    texts = [
        ("question", _last(row["prompt"])),
        ("accepted answers", " | ".join(about["answers"])),
        ("chosen", _last(row["chosen"])),
        ("rejected" if about["rejected_ended"] else "rejected, cut off", _last(row["rejected"])),
    ]
    shown = "".join(
        f"<p class={name.split()[0].strip(',')}><span class=role>{name}</span>\n"
        f"{short_text(text)}</p>"
        for name, text in texts
    )
    return f"<div class=row>{pictures}{shown}<code>{short_text(row['id'])}</code></div>"


def _last(messages: list[dict[str, str]]) -> str:
    return messages[-1]["content"]
