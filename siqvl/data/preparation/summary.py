"""What was prepared, in a few lines for a terminal."""

from __future__ import annotations

from siqvl.data.manifest import Manifest
from siqvl.text_table import text_table

COLUMNS = ("read", "kept", "bad", "duplicate", "leaked", "left out", "no picture")


def summary_of(manifest: Manifest, name: str) -> str:
    """A table of the sources of prepared data, and what one should know about them.

    Args:
        name: of the folder.
    """
    table: list[tuple[str, ...]] = [(name, "split", *COLUMNS)]
    for source, rows in zip(manifest.sources, manifest.of_sources, strict=False):
        counts = (rows.read, rows.kept, rows.bad, rows.duplicate, rows.leaked, rows.left_out)
        figures = [f"{count:,}" for count in (*counts, rows.without_picture)]
        table.append((f"{source.kind} {source.path or ''}".strip(), source.split, *figures))
    lines = text_table(table, left=(0, 1))
    which = "ran in part" if manifest.leaks else "did not run"
    said = [f"the check for pictures of benchmarks {which}: {one}" for one in manifest.unchecked]
    return "\n".join([*lines, *manifest.remarks(), *said])
