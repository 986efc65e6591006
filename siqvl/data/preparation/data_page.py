"""One page to look at prepared data: counts, statistics, and a few rows with their pictures."""

from __future__ import annotations

from collections.abc import Sequence

from siqvl.data.manifest import Manifest
from siqvl.data.schema import MESSAGE_COLUMNS, Row, RowKind
from siqvl.page.pictures import data_uri
from siqvl.page.render import render

EXAMPLES = 12
SHOWN_BYTES, SHOWN_PIXELS = 100_000, 640  # the page goes into a Flyte Deck, so it stays small

#: By reason, the first line of the quarantine list with it: `id` and `detail` of a row.
Lines = dict[str, dict[str, str]]


def render_report(manifest: Manifest, examples: Sequence[list[Row]], refused: Lines) -> str:
    """The text of the page.

    Args:
        manifest: what is shown.
        examples: stored rows of each source, as `example` gives them.
        refused: why rows are not among the prepared ones.
    """
    return render(
        "data/preparation/data_page.html.jinja",
        manifest=manifest,
        quarantined=_reasons(manifest.quarantined, refused),
        left_out=_reasons(manifest.left_out, refused),
        leaks=[(name, rows["exact"], rows["near"]) for name, rows in manifest.leaks.items()],
        sources=list(zip(manifest.sources, manifest.of_sources, strict=True)),
        examples=[
            (source, [(row, _texts(row, manifest.kind)) for row in rows])
            for source, rows in zip(manifest.sources, examples, strict=True)
            if rows
        ],
    )


def example(row: Row) -> Row:
    """A stored row as it is kept for the page: its pictures as small `data:` URIs."""
    pictures = [data_uri(image["bytes"], SHOWN_PIXELS, SHOWN_BYTES) for image in row["images"]]
    return row | {"images": pictures}


def _reasons(counts: dict[str, int], refused: Lines) -> list[tuple[str, int, dict[str, str]]]:
    """Reason, rows and the first line, the most frequent reason first."""
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    unknown = {"id": "", "detail": ""}
    return [(reason, count, refused.get(reason, unknown)) for reason, count in frequent]


def _texts(row: Row, kind: RowKind) -> list[tuple[str, str]]:
    """What is said in a row, and who says it."""
    if kind is RowKind.EVALUATION:
        return [("question", row["question"]), ("answers", " | ".join(row["answers"]))]
    prompt, *completions = MESSAGE_COLUMNS[kind]
    asked = [(turn["role"], turn["content"]) for turn in row[prompt]]
    return asked + [(name, turn["content"]) for name in completions for turn in row[name]]
