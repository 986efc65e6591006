"""What was prepared, in a few lines for a terminal."""

from __future__ import annotations

from siqvl.data.manifest import Manifest


def summary_of(manifest: Manifest, name: str) -> str:
    """The rows of prepared data, and what one should know about them.

    Args:
        name: of the folder.
    """
    bad, left_out = sum(manifest.quarantined.values()), sum(manifest.left_out.values())
    lines = [f"{name}: {manifest.rows:,} rows, {bad:,} bad, {left_out:,} left out"]
    which = "ran in part" if manifest.leaks else "did not run"
    lines += [
        f"  the check for pictures of benchmarks {which}: {one}" for one in manifest.unchecked
    ]
    return "\n".join(lines)
