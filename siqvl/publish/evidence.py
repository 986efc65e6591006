"""What is known of a checkpoint: the stages that led to it, and how it scored.

All is found by content hashes, so that scores are those of these very weights. What no place knows
stays unknown, and a model card says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from siqvl.checkpoint import CheckpointCard
from siqvl.evaluation.scoring.scores import Score, Scores
from siqvl.recipe import Stage

#: No pipeline is longer; cards that name each other in a circle end here.
MOST_STAGES = 2 * len(Stage)


class Found(NamedTuple):
    """The scores of a checkpoint, and where they were."""

    scores: Scores
    place: str  # in words, without a path of this machine


class Place(Protocol):
    """Where cards and scores may be: a run's folder, MLflow."""

    def card(self, checkpoint: str) -> CheckpointCard | None:
        """Return the card of the checkpoint with this content hash."""

    def scores(self, checkpoint: str) -> Iterator[Found]:
        """Yield all scores of the checkpoint with this content hash, the best known first."""


@dataclass(frozen=True)
class Evidence:
    """What a model card may say.

    Attributes:
        lineage: cards of the stages from the first that is known to the checkpoint's own.
        scores: of the checkpoint; None: no evaluation of it was found.
        places: where scores were found, in words.
    """

    lineage: Sequence[CheckpointCard]
    scores: Scores | None
    places: Sequence[str]

    @property
    def card(self) -> CheckpointCard:
        """Return the checkpoint's own card."""
        return self.lineage[-1]

    @property
    def lost_parent(self) -> str | None:
        """Return the hash of the first known stage's parent; None: it is a first stage."""
        return self.lineage[0].parent


def gather(card: CheckpointCard, places: Iterable[Place]) -> Evidence:
    """Ask places for a checkpoint's ancestors and scores; of a benchmark the first answer counts.

    Args:
        card: the checkpoint's, which is known to be that of its files.
    """
    asked = list(places)
    lineage = [card]
    while lineage[0].parent is not None and len(lineage) < MOST_STAGES:
        found = (place.card(lineage[0].parent) for place in asked)
        parent = next((one for one in found if one is not None), None)
        if parent is None:
            break
        lineage.insert(0, parent)
    scores, places_of = _scores(card, asked)
    return Evidence(lineage, scores, places_of)


def _scores(card: CheckpointCard, places: Sequence[Place]) -> tuple[Scores | None, list[str]]:
    scores: dict[str, Score] = {}
    used: dict[str, None] = {}
    first: Scores | None = None
    for place in places:
        for found in place.scores(card.hash):
            new = {one.benchmark: one for one in found.scores.scores}
            if new.keys() - scores.keys():
                used[found.place] = None
            scores = new | scores
            first = first or found.scores
    if first is None:
        return None, []
    return first.model_copy(update={"scores": list(scores.values())}), list(used)


class EvaluationFolder:
    """An EvalReport directory that somebody names."""

    def __init__(self, folder: Path) -> None:
        self._scores = Scores.read(folder)
        self.checkpoint = self._scores.checkpoint_hash

    def card(self, checkpoint: str) -> CheckpointCard | None:
        """Return None: a report has no cards."""
        return None

    def scores(self, checkpoint: str) -> Iterator[Found]:
        """Yield the report's scores, if they are this checkpoint's."""
        if self.checkpoint == checkpoint:
            yield Found(self._scores, "an evaluation report that was named")
