"""The MLflow store of a recipe, and which of its failures pass."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking.store_address import check_address, with_home

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_STORE = "sqlite:///mlflow.db"
#: MLflow's own tries block for minutes (7 with growing pauses); what waits here is on disk.
HTTP_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
#: Trying again would not help: the server was reached, and what it got is wrong.
REFUSALS = frozenset(
    {
        "BAD_REQUEST",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)


def tracking_uri(recipe: Recipe) -> str:
    """Return the recipe's store, MLFLOW_TRACKING_URI, or a sqlite file in the working directory."""
    named = recipe.tracking.uri, os.environ.get("MLFLOW_TRACKING_URI")
    return with_home(named[0] or named[1] or DEFAULT_STORE)


def client(uri: str) -> MlflowClient:
    """A client of one store, whose requests fail soon where nobody answers."""
    for name, value in HTTP_LIMITS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@contextmanager
def opened(uri: str, purpose: str) -> Iterator[MlflowClient]:
    """A client of one store, whose failure is one line.

    Args:
        purpose: what cannot be done with the store then, such as "read".

    Raises:
        UserError: the store does not answer, or refuses.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    check_address(uri)
    try:
        yield client(uri)
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"MLflow store {without_password(uri)} cannot be {purpose}: {reason}"
        ) from None


def is_missing_file(uri: str) -> bool:
    """Whether a store would be a sqlite file that is not there; MLflow makes one at first use."""
    file = uri.removeprefix("sqlite:///").partition("?")[0]
    return uri.startswith("sqlite:///") and not Path(file).is_file()


def is_refusal(error: Exception) -> bool:
    """Return whether an error is the store's refusal, and not its silence."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.error_code in REFUSALS


def is_gone(error: Exception) -> bool:
    """Return whether an error says that what was asked for, such as a run, is not in the store."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def without_password(uri: str) -> str:
    """`scheme://user:secret@host` -> `scheme://user:***@host`; `https://token@host` likewise."""
    uri = re.sub(r"^(https?://)[^/:@]+@", r"\1***@", uri)
    return re.sub(r"(://[^/:@]*):[^@/]*@", r"\1:***@", uri)
