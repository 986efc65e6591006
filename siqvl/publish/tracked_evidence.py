"""What MLflow knows of a checkpoint: runs that scored it, and versions of its ancestors."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.checkpoint import CARD, CheckpointCard
from siqvl.comparison.lookup import search
from siqvl.comparison.side import EVALUATION
from siqvl.errors import UserError
from siqvl.evaluation.scoring.scores import SCORES, Scores
from siqvl.publish.evidence import Found
from siqvl.registry.promotion import EVALUATION as REFERRED
from siqvl.registry.resolve import RUNS
from siqvl.registry.versions import CHECKPOINT
from siqvl.serving.package import WEIGHTS
from siqvl.stored import read_stored

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class TrackedEvidence:
    """An MLflow store, asked for one checkpoint after the other by content hash."""

    def __init__(self, store: MlflowClient) -> None:
        self._store = store

    def card(self, checkpoint: str) -> CheckpointCard | None:
        """Return the card of a registered version, or of a checkpoint that a run kept."""
        wanted = f"tags.`{CHECKPOINT}` = '{checkpoint}'"
        for version in self._store.search_model_versions(wanted):
            card = self._version_card(version.source or "")
            if card is not None and card.hash == checkpoint:
                return card
        return None

    def _version_card(self, source: str) -> CheckpointCard | None:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as folder, suppress(MlflowException, OSError, UserError):
            path = download_artifacts(
                artifact_uri=f"{source.rstrip('/')}/{WEIGHTS}/{CARD}",
                dst_path=folder,
                tracking_uri=self._store.tracking_uri,
            )
            return read_stored(Path(path), CheckpointCard, "")
        return None

    def scores(self, checkpoint: str) -> Iterator[Found]:
        """Yield what runs of any experiment kept, the newest first, then what versions refer to."""
        wanted = f"tags.`{CHECKPOINT}` = '{checkpoint}'"
        runs: list[Run] = []
        for experiment in self._store.search_experiments():
            runs += search(self._store, experiment.experiment_id, wanted)
        newest = sorted(runs, key=lambda one: one.info.start_time, reverse=True)
        places = [(run.info.run_id, EVALUATION) for run in newest]
        for version in self._store.search_model_versions(wanted):
            for tag, place in version.tags.items():
                run_id, _, folder = place.removeprefix(RUNS).partition("/")
                if tag.startswith(REFERRED) and place.startswith(RUNS) and folder:
                    places.append((run_id, folder))
        for run_id, folder in dict.fromkeys(places):
            found = self._report(run_id, folder)
            if found is not None and found.checkpoint_hash == checkpoint:
                yield Found(found, f"MLflow run {run_id}")

    def _report(self, run_id: str, artifact: str) -> Scores | None:
        from mlflow.exceptions import MlflowException

        wanted = f"{artifact}/{SCORES}"
        with tempfile.TemporaryDirectory() as folder, suppress(MlflowException, OSError, UserError):
            if wanted in {one.path for one in self._store.list_artifacts(run_id, artifact)}:
                path = self._store.download_artifacts(run_id, wanted, folder)
                return Scores.read(Path(path).parent)
        return None
