"""The stages that led to a model, as its card shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from siqvl.checkpoint import CheckpointCard
from siqvl.publish.benchmark_table import source_words
from siqvl.publish.evidence import Evidence
from siqvl.stages import STAGES

STAGE_COLUMNS = ["stage", "checkpoint", "learns", "steps", "batch", "learning rate", "took"]


@dataclass(frozen=True)
class StageRow:
    """A stage and the card of what it made."""

    card: CheckpointCard

    @property
    def title(self) -> str:
        """Return the stage's name, and which control it is."""
        title = STAGES[self.card.stage].title
        return f"{title}, {self.card.control.words}" if self.card.control else title

    @property
    def settings(self) -> dict[str, Any]:
        """Return the stage's section of its recipe, which may be of another day."""
        stages = self.card.recipe.get("stages")
        found = stages.get(self.card.stage.value) if isinstance(stages, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def cells(self) -> list[str]:
        """Return the row of the table whose head is `STAGE_COLUMNS`; a dash: not recorded."""
        has = self.settings
        steps, epochs = has.get("max_steps"), has.get("epochs")
        batch = has.get("batch_size")
        accumulated = has.get("accumulation", 1)
        seconds = self.card.metrics.get("train_runtime")
        return [
            self.title,
            f"`{self.card.hash[:12]}`",
            ", ".join(self._learning) or "–",
            f"{steps:,}" if steps else f"{epochs:g} epochs" if epochs else "–",
            "–" if batch is None else f"{batch} × {accumulated}" if accumulated > 1 else f"{batch}",
            f"{has['learning_rate']:g}" if "learning_rate" in has else "–",
            "–" if seconds is None else f"{seconds:,.0f} s",
        ]

    @property
    def _learning(self) -> list[str]:
        """Return the parts that learnt, in words, and the one that did by an adapter."""
        by = {"language_model": " by LoRA"} if self.settings.get("adapter") else {}
        parts = self.settings.get("trainable", [])
        return [name.replace("_", " ") + by.get(name, "") for name in parts]

    @property
    def sources(self) -> list[str]:
        """Return each source of training rows in words."""
        found = [source_words(one) for one in self.settings.get("sources", [])]
        sampled = self.settings.get("sampled")
        if isinstance(sampled, dict):
            found.append(
                "pairs that the model before this stage wrote itself, about "
                + source_words(sampled.get("source") or {})
            )
        return found

    @property
    def rows(self) -> str:
        """Return how many rows were there to learn from, as the training counted them."""
        rows, left_out = (self.card.metrics.get(name) for name in ("rows", "rows_left_out"))
        if rows is None:
            return "not recorded"
        return f"{rows:,.0f}" + (f", {left_out:,.0f} left out as too long" if left_out else "")


def stage_rows(evidence: Evidence) -> list[StageRow]:
    """Return a row for every stage whose card was found."""
    return [StageRow(card) for card in evidence.lineage]


def lost_words(evidence: Evidence) -> str | None:
    """Return a sentence about earlier stages whose checkpoints were not found."""
    if evidence.lost_parent is None:
        return None
    stage = evidence.lineage[0].parent_stage
    title = STAGES[stage].title if stage else "an earlier stage"
    return (
        f"Before it came {title}, checkpoint `{evidence.lost_parent[:12]}`, whose card was not at "
        "hand when this was published: its data and figures are not known here."
    )
