"""Checkpoints in MLflow's model registry: a version for each, and who holds which alias.

A version can be served as it is (`siqvl.serving`); its tags say what it is made of. As in
`siqvl.tracking.runs`, nothing here touches MLflow's globals: two tasks may share a process.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.checkpoint import CheckpointCard, verify_checkpoint
from siqvl.errors import UserError, one_line
from siqvl.serving.package import WEIGHTS, write_package
from siqvl.serving.settings import ServingSettings
from siqvl.tracking.runs import RunLog, client
from siqvl.tracking.store import is_refusal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException

logger = logging.getLogger(__name__)

CHECKPOINT = "siqvl.checkpoint"
RUN = "siqvl.run_id"
#: How the name of a registered model begins, as a user gives it.
MODELS = "models:/"


def version_named(store: MlflowClient, reference: str) -> ModelVersion:
    """Finds a version by `models:/name@alias` or `models:/name/version`.

    Raises:
        UserError: there is no such version.
    """
    from mlflow.exceptions import MlflowException

    name, at, alias = reference.removeprefix(MODELS).partition("@")
    name, _, number = (name, "", "") if at else name.rpartition("/")
    try:
        if at:
            return store.get_model_version_by_alias(name, alias)
        return store.get_model_version(name, number)
    except MlflowException as error:
        raise no_model(reference, error) from None


def no_model(reference: str, error: MlflowException) -> UserError:
    """Says that nothing is registered under a name, and why."""
    return UserError(
        f"{reference} is no registered model ({one_line(error)}): name one like "
        "models:/siqvl-tiny@champion or models:/siqvl-tiny/3"
    )


class RegistryAway(UserError):
    """The store does not answer."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    number: int
    tags: dict[str, str]


@dataclass(frozen=True)
class Registry:
    """One registered model of a store.

    Every method raises RegistryAway where the store does not answer, UserError where it refuses.
    """

    uri: str
    name: str

    def find(self, tags: dict[str, str]) -> Version | None:
        """The newest version that has all of these tags."""
        wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        with self._client() as store:
            found = store.search_model_versions(" and ".join([f"name = '{self.name}'", *wanted]))
        versions = [_version(one) for one in found]
        return max(versions, key=lambda version: version.number, default=None)

    def holder(self, alias: str) -> Version | None:
        """The version that an alias points to."""
        with self._client() as store:
            model = next(iter(store.search_registered_models(f"name = '{self.name}'")), None)
            number = model.aliases.get(alias) if model else None
            return _version(store.get_model_version(self.name, str(number))) if number else None

    def version(self, number: int) -> Version:
        """A version by its number."""
        with self._client() as store:
            return _version(store.get_model_version(self.name, str(number)))

    def tagged(self, tag: str) -> list[Version]:
        """All versions that have a tag, in order of their numbers."""
        with self._client() as store:
            found = store.search_model_versions(f"name = '{self.name}' and tags.`{tag}` LIKE '%'")
        return sorted(map(_version, found), key=lambda version: version.number)

    def give(self, alias: str, number: int) -> None:
        """Have an alias point to a version, and to no other one."""
        with self._client() as store:
            store.set_registered_model_alias(self.name, alias, str(number))

    def tag(self, number: int, tags: dict[str, str]) -> None:
        """Set tags of a version."""
        with self._client() as store:
            for key, value in tags.items():
                store.set_model_version_tag(self.name, str(number), key, value)

    def register(self, log: RunLog, checkpoint: Path) -> int:
        """Log a checkpoint directory as a model of a run, and make a version of it.

        It is done once for a run and checkpoint; a second call gives the same version.
        """
        card = verify_checkpoint(checkpoint)
        known = self.find({CHECKPOINT: card.hash, RUN: log.run_id})
        if known is not None:
            return known.number
        with self._client() as store:
            model = _logged(store, log, checkpoint, card)
            self._exist(store)
            version = store.create_model_version(
                self.name,
                # not models:/<id>, which a database looks up in the process's global store
                source=model.artifact_location,
                run_id=log.run_id,
                model_id=model.model_id,
                tags=_tags(card, log),
            )
        return int(version.version)

    def _exist(self, store: MlflowClient) -> None:
        from mlflow.exceptions import MlflowException

        try:
            store.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    @contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        try:
            yield client(self.uri)
        except UserError:
            raise
        except Exception as error:  # of MLflow, its transport, or the store behind its artifacts
            kind = UserError if is_refusal(error) else RegistryAway
            raise kind(f"MLflow's model registry cannot be used: {one_line(error)}") from error


def keep_model(log: RunLog, checkpoint: Path, registry: Registry) -> int | None:
    """Register a checkpoint; where that cannot be done, keep it as an artifact of its run.

    A stage that is trained must not be lost because a server is away. The pipeline's last
    checkpoint is registered at its end then.

    Raises:
        UserError: it is not what its card says.
    """
    verify_checkpoint(checkpoint)
    try:
        return registry.register(log, checkpoint)
    except UserError as error:
        logger.warning("%s; the checkpoint is kept as an artifact of its run", error.message)
        log.artifact(checkpoint, "checkpoint")
        return None


def _logged(
    store: MlflowClient, log: RunLog, checkpoint: Path, card: CheckpointCard
) -> LoggedModel:
    """The model whose weights are the run's; it is ready when all of it is there.

    One that a killed attempt began is gone on with.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    run = store.get_run(log.run_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    found = [store.get_logged_model(one.model_id) for one in outputs]
    begun = [
        one
        for one in found
        if one.tags.get(CHECKPOINT) == card.hash and one.status != LoggedModelStatus.FAILED
    ]
    if begun and begun[0].status == LoggedModelStatus.READY:
        return begun[0]
    model = (
        begun[0]
        if begun
        else store.create_logged_model(
            run.info.experiment_id,
            card.stage.value,
            source_run_id=log.run_id,
            tags=_tags(card, log),
        )
    )
    try:
        if not begun:
            store.log_outputs(log.run_id, [LoggedModelOutput(model.model_id, step=0)])
        with tempfile.TemporaryDirectory() as folder:
            described = Model(
                artifact_path=model.artifact_location,
                model_uuid=model.model_id,
                run_id=log.run_id,
                model_id=model.model_id,
            )
            write_package(Path(folder), ServingSettings.of(card.recipe), described)
            store.log_model_artifacts(model.model_id, str(checkpoint), WEIGHTS)
            store.log_model_artifacts(model.model_id, folder)
    except BaseException:
        with suppress(Exception):  # what went wrong first is what people must read
            store.finalize_logged_model(model.model_id, "FAILED")
        raise
    return store.finalize_logged_model(model.model_id, "READY")


def _tags(card: CheckpointCard, log: RunLog) -> dict[str, str]:
    """What a version is made of."""
    return {
        RUN: log.run_id,
        CHECKPOINT: card.hash,
        "siqvl.stage": card.stage.value,
        "siqvl.parent_checkpoint": card.parent or "none",
        "siqvl.data_fingerprint": card.data_fingerprint,
        "siqvl.recipe": card.recipe_name,
        "siqvl.recipe_hash": card.recipe_hash,
        "siqvl.code_version": card.code_version,
    }


def _version(found: ModelVersion) -> Version:
    return Version(int(found.version), dict(found.tags))
