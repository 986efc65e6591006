"""Where a checkpoint is that a user names: a folder, on the hub, in MLflow's registry or a run.

What is brought here from elsewhere is files of known kinds alone, none of which is executed, and it
is kept: named again, it is not brought again while its card says the same.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.checkpoint import CARD, HISTORY, CheckpointCard, verify_checkpoint
from siqvl.errors import UserError, one_line
from siqvl.files import atomic_folder, expanded, file_sha256
from siqvl.registry.versions import MODELS, version_named
from siqvl.serving.package import WEIGHTS
from siqvl.stored import stored_if_sound
from siqvl.tracking.store import DEFAULT_STORE, is_missing_file, opened, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUNS = "runs:/"
FORMS = "a folder, a hub id like owner/name, models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID"
#: `owner/name`, or `owner/name@revision`.
HUB_MODEL = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?")
#: Endings of files that are brought from the hub: no pickles.
BROUGHT = (".safetensors", ".json", ".jinja", ".txt", ".py")
#: Where `keep_model` puts a checkpoint that could not be registered.
OF_RUN = "checkpoint"
SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")
CACHE = "SIQVL_CACHE"


def resolve_checkpoint(reference: str, *, tracking_uri: str | None = None) -> Path:
    """Finds the checkpoint that is meant, and brings it to this machine if it is elsewhere.

    Its content is not judged yet: `verify_checkpoint` does, and all that loads one.

    Args:
        reference: a checkpoint's folder, or that of an MLflow model around one; a hub id,
            `owner/name` or `owner/name@revision`; a registered model, `models:/name@alias` or
            `models:/name/version`; or what a run has, `runs:/id`, `runs:/id/path`.
        tracking_uri: the MLflow store of the last two; None: MLFLOW_TRACKING_URI, or a sqlite file
            in the working directory.

    Returns:
        A local folder with a `siqvl.json`.

    Raises:
        UserError: there is no such thing, it cannot be reached, or it is no SiQ-VL checkpoint.
    """
    if reference.startswith((MODELS, RUNS)):
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
        return _of_mlflow(reference, uri)
    folder = expanded(reference)
    if reference and folder.is_dir():
        return _inside(folder)
    if reference and folder.exists():
        raise UserError(f"{reference} is a file; name the checkpoint's folder")
    if named := HUB_MODEL.fullmatch(reference):
        return _of_hub(named["repository"], named["revision"])
    raise UserError(f"there is no checkpoint {reference}: name {FORMS}")


def _inside(folder: Path) -> Path:
    """The checkpoint that a folder is, or holds as an MLflow model does."""
    for place in (folder, folder / WEIGHTS):
        if (place / CARD).is_file():
            return place
    raise UserError(
        f"{folder} is no SiQ-VL checkpoint: it has no {CARD}; name the directory that a training "
        "stage printed"
    )


def _of_hub(repository: str, revision: str | None) -> Path:
    """The files that the card of a model on the hub names, in the hub's own cache."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        card = Path(hf_hub_download(repository, CARD, revision=revision))
        found = stored_if_sound(card, CheckpointCard)
        named = sorted(found.files or ()) if found else []
        wanted = [name for name in named if name.endswith(BROUGHT)]
        every = [f"*{ending}" for ending in BROUGHT]
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=[CARD, HISTORY, *(wanted or every)]
            )
        )
    except LocalEntryNotFoundError as error:  # it has not been brought, and the hub is away
        raise UserError(
            f"{repository} is no folder here, and the hub cannot be reached ({one_line(error)})"
        ) from None
    except EntryNotFoundError:
        raise UserError(
            f"{repository} on the hub is no SiQ-VL checkpoint: it has no {CARD}"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(
            f"{repository} is no folder here, and the hub does not give it ({one_line(error)})"
        ) from None


def _of_mlflow(reference: str, uri: str) -> Path:
    """The checkpoint of a registered model or a run."""
    if is_missing_file(uri):
        raise UserError(
            f"there is no MLflow store {without_password(uri)} to find {reference} in: name it "
            "with MLFLOW_TRACKING_URI"
        )
    with opened(uri, "read") as store:
        if reference.startswith(MODELS):
            source = str(version_named(store, reference).source).rstrip("/")
            places = [f"{source}/{WEIGHTS}"]
        else:
            places = _places_of_run(store, reference)
    local = [here for place in places if (here := _local(place))]
    for folder in local:
        if folder.is_dir():
            return _inside(folder)
    elsewhere = [place for place in places if not _local(place)]
    if not elsewhere:
        raise UserError(f"{reference} has no checkpoint: there is no folder {local[0]} here")
    return _brought(reference, elsewhere, uri)


def _local(place: str) -> Path | None:
    """The folder that an artifact's address means, if it is one of this machine."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    if SCHEME.match(place) and not place.startswith("file:"):
        return None
    return Path(local_file_uri_to_path(place))


def _places_of_run(store: MlflowClient, reference: str) -> list[str]:
    """Where the checkpoint of a run may be: its models first, then its artifacts."""
    from mlflow.exceptions import MlflowException

    run_id, _, path = reference.removeprefix(RUNS).strip("/").partition("/")
    try:
        run = store.get_run(run_id)
        outputs = run.outputs.model_outputs if run.outputs else []
        models = [store.get_logged_model(one.model_id) for one in outputs]
    except MlflowException as error:
        raise UserError(f"{reference} is nothing of a run ({one_line(error)})") from None
    sources = [one.artifact_location for one in models if not path or one.name == path]
    artifacts = f"{str(run.info.artifact_uri).rstrip('/')}/{path or OF_RUN}"
    return [*(f"{one.rstrip('/')}/{WEIGHTS}" for one in sources), artifacts]


def _brought(reference: str, places: Sequence[str], uri: str) -> Path:
    """A copy of what a store of artifacts holds; one that is here already, if it is the same."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    said = ""
    for place in places:
        with tempfile.TemporaryDirectory() as folder:
            try:
                files = get_artifact_repository(place, tracking_uri=uri)
                card = Path(files.download_artifacts(CARD, dst_path=folder))
            except Exception as error:  # of MLflow, its transport, or the store behind it
                said = said or one_line(error)
                continue
            kept = _cache() / file_sha256(card)[:32]
        if not _is_sound(kept):
            with _sentence(reference), atomic_folder(kept) as partial:
                files.download_artifacts("", dst_path=str(partial))
        return kept
    raise UserError(f"{reference} has no checkpoint that can be brought here ({said})")


def _is_sound(folder: Path) -> bool:
    try:
        verify_checkpoint(folder)
    except UserError:
        return False
    return True


@contextmanager
def _sentence(reference: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of MLflow, its transport, the store behind it, or this disk
        raise UserError(f"{reference} cannot be brought here ({one_line(error)})") from None


def _cache() -> Path:
    """The folder of checkpoints that were brought here: SIQVL_CACHE, or the user's own cache."""
    if named := os.environ.get(CACHE):
        return expanded(named) / "checkpoints"
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "siqvl" / "checkpoints"
