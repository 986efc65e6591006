"""Losses of the two sides on the same rows in the same order, step by step, in fp32."""

from __future__ import annotations

from typing import Any

from benchmarks.training.compare import Variant, run
from benchmarks.training.scenario import Scenario
from siqvl.text_table import text_table

TOLERANCE = 1e-4


def losses(scenario: Scenario, settings: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Ours and TRL's, of every optimizer step.

    TRL gets the rows in the order in which our plan gave them, with `no_newline` (see `peer`), its
    own collator and its default for everything else but checkpointing, which changes nothing.

    Args:
        settings: keys of our recipe's stage.
    """
    ours = run(scenario, Variant("ours", "ours", settings), losses=True)
    told = {
        "gradient_checkpointing": False,
        "sampling": "sequential",
        "no_newline": True,
        "order": ours["order"],
        "same_adapter": scenario.adapter,
    }
    peer = run(scenario, Variant("TRL", "peer", told), losses=True)
    return ours["losses"], peer["losses"]


def parity_table(found: dict[str, tuple[list[float], list[float]]]) -> list[str]:
    """A line for each comparison: first and last losses, and the largest difference."""
    rows = [
        ("", "steps", "first: ours", "TRL", "last: ours", "TRL", "largest difference", "within")
    ]
    for name, (ours, peer) in found.items():
        worst = max(abs(a - b) for a, b in zip(ours, peer, strict=True))
        rows.append(
            (
                name,
                str(len(ours)),
                *(f"{value:.6f}" for value in (ours[0], peer[0], ours[-1], peer[-1])),
                f"{worst:.1e}",
                f"{TOLERANCE:g}" if worst <= TOLERANCE else f"NOT {TOLERANCE:g}",
            )
        )
    return text_table(rows, left={0})
