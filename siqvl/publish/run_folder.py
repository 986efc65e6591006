"""The folder of a pipeline run on disk, where checkpoints and evaluations lie beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from siqvl.checkpoint import CARD, CheckpointCard, read_card
from siqvl.errors import UserError
from siqvl.evaluation.scoring.scores import SCORES, Scores
from siqvl.publish.evidence import Found


class RunFolder:
    """`<run>/checkpoints/<stage>` and `<run>/evaluation/<stage>`; or a folder with `scores.json`.

    What is damaged there is passed over, since other places may have it whole.

    Args:
        checkpoint: a directory in it.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint.resolve()

    @cached_property
    def _cards(self) -> dict[str, CheckpointCard]:
        found = {}
        for path in sorted(self._checkpoint.parent.glob(f"*/{CARD}")):
            with suppress(UserError):
                card = read_card(path.parent)
                found[card.hash] = card
        return found

    def card(self, checkpoint: str) -> CheckpointCard | None:
        """Return the card of a checkpoint beside this one."""
        return self._cards.get(checkpoint)

    def scores(self, checkpoint: str) -> Iterator[Found]:
        """Yield scores of the run's evaluations, then those that were published with the model."""
        evaluations = self._checkpoint.parent.parent.glob(f"evaluation/*/{SCORES}")
        for path in sorted(evaluations):
            yield from _read(path.parent, checkpoint, "the evaluation of the run that trained it")
        if (self._checkpoint / SCORES).is_file():
            yield from _read(self._checkpoint, checkpoint, "what it was published with")


def _read(folder: Path, checkpoint: str, place: str) -> Iterator[Found]:
    with suppress(UserError):
        scores = Scores.read(folder)
        if scores.checkpoint_hash == checkpoint:
            yield Found(scores, place)
