"""Scores as a model card shows them: rows of a table, and the hub's evaluation metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from siqvl.evaluation.gates.verdict import PLAYERS
from siqvl.evaluation.scoring.scores import OTHERS, Result, Score, between, mean_of
from siqvl.number_formats import percent, points, span
from siqvl.publish.licences import HUB_ID
from siqvl.recipe import Player

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

#: Names that the hub knows for what a scorer computes; the others are shares of right answers.
METRICS = {"exact_match": "exact_match", "anls": "anls", "chartqa": "relaxed_accuracy"}
TASKS = {
    "generation": "visual-question-answering",
    "likelihood": "visual-question-answering",
    "preference": "image-text-to-text",
}


@dataclass(frozen=True)
class BenchmarkRow:
    """A benchmark of a model card.

    Attributes:
        asked: the benchmark's section of the recipe, as JSON; empty: not in the recipe.
    """

    score: Score
    asked: dict[str, Any]

    @property
    def cells(self) -> list[str]:
        """Return the row of the table whose head is `COLUMNS`."""
        own = self.score.players["picture"]
        return [
            self.score.benchmark,
            f"{self.score.questions:,}",
            f"**{percent(own.mean)}**",
            between(own),
            *(mean_of(self.score.players.get(player)) for player in OTHERS),
            self.lead,
        ]

    @property
    def best_other(self) -> tuple[Player, Result, Result] | None:
        """Return who scores most without looking, with result and paired lead over it."""
        others = [
            (player, self.score.players[player], self.score.lead[player])
            for player in OTHERS
            if player in self.score.players and player in self.score.lead
        ]
        return max(others, key=lambda one: one[1].mean, default=None)

    @property
    def lead(self) -> str:
        """Return the paired difference to the best that does not look, with its interval."""
        best = self.best_other
        return f"{points(best[2].mean)} ({span(best[2].interval)})" if best else "–"

    @property
    def doubt(self) -> str | None:
        """Return a sentence where the lead over who does not look is not shown."""
        best = self.best_other
        if best is None:
            return (
                f"`{self.score.benchmark}` has no baseline beside it, so that its score says "
                "little of how much the picture is used."
            )
        if best[2].interval[0] > 0:
            return None
        return (
            f"On `{self.score.benchmark}` the model is not shown to be better than "
            f"{PLAYERS[best[0]]}: {self.lead} points."
        )

    @property
    def types(self) -> list[list[str]]:
        """Return a row a type of question: name, questions, score, interval, best other."""
        rows = []
        for name, kind in self.score.types.items():
            own = kind.players["picture"]
            others = [one.mean for player, one in kind.players.items() if player != "picture"]
            best = percent(max(others)) if others else "–"
            rows.append([name, f"{kind.questions:,}", percent(own.mean), between(own), best])
        return rows

    @property
    def how(self) -> list[tuple[str, str]]:
        """Return how it was asked and scored, as pairs of a name and what is said."""
        score = self.score
        source = self.asked.get("source") or {}
        said = [
            ("method", score.method),
            ("scorer", score.scorer),
            ("decoding", ", ".join(f"{key} {value}" for key, value in score.decoding.items())),
            ("questions", f"{score.questions:,}, split `{score.split or 'not recorded'}`"),
            ("source", source_words(source) if source else "not in the recipe of this model"),
            ("data fingerprint", f"`{score.data_fingerprint}`"),
        ]
        if marker := self.asked.get("answer_marker"):
            said.append(("scored text", f"what follows the last `{marker}`"))
        if score.figures:
            said.append(("published beside the mean", score.figures_text))
        return said

    def metadata(self) -> EvalResult:
        """Return the entry of the card's `model-index`."""
        from huggingface_hub import EvalResult

        score, source = self.score, self.asked.get("source") or {}
        path = source.get("path") or ""
        own = score.players["picture"]
        scorer = score.scorer.partition("/")[0]
        return EvalResult(
            task_type=TASKS.get(score.method, "image-text-to-text"),
            dataset_type=path if HUB_ID.fullmatch(path) else str(source.get("kind", "unknown")),
            dataset_name=score.benchmark,
            # what shares type, config and split is shown as one data set with the first one's name
            dataset_config=score.benchmark,
            dataset_split=score.split or None,
            dataset_revision=source.get("revision"),
            dataset_args={"fingerprint": score.data_fingerprint},
            metric_type=METRICS.get(scorer, "accuracy"),
            metric_name=f"{score.scorer} ({score.method})",
            metric_value=share(own.mean),
            metric_args={
                "questions": score.questions,
                "interval_95": [share(bound) for bound in own.interval],
                "baselines": {
                    player: share(one.mean)
                    for player, one in score.players.items()
                    if player != "picture"
                },
            },
        )


COLUMNS = ["benchmark", "n", "score", "95 % interval", *OTHERS.values(), "lead, points"]


def share(value: float) -> float:
    """Return a share as the percentage that metadata has, to two places."""
    return round(100 * value, 2)


def source_words(source: dict[str, Any]) -> str:
    """Return a source of a recipe in words: `shapes, vqa, split test, at most 2,000 rows`."""
    said = [f"`{source.get('path') or source.get('kind', 'unknown')}`"]
    said += [f"`{one}`" for one in source.get("subsets") or []]
    said.append(f"split `{source.get('split', 'train')}`")
    if revision := source.get("revision"):
        said.append(f"revision `{revision}`")
    if skip := source.get("skip"):
        said.append(f"from row {skip:,} on")
    if most := source.get("max_samples"):
        said.append(f"at most {most:,} rows")
    if (weight := source.get("weight", 1.0)) != 1.0:
        said.append(f"weight {weight:g}")
    return ", ".join(said)
