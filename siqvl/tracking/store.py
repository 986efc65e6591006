"""The MLflow store of a recipe, and which of its failures pass."""

from __future__ import annotations

import enum
import math
import os
import re
import sys
import threading
import time
from calendar import timegm
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from siqvl.errors import UserError
from siqvl.locks import locked
from siqvl.recipe import Recipe, without_password
from siqvl.recipe.address import SQLITE, check_address, with_home
from siqvl.tracking.server.rest_request import RestError, is_plain, sent
from siqvl.tracking.server.rest_store import RestStore

if TYPE_CHECKING:
    import requests
    from mlflow import MlflowClient

DEFAULT_STORE = "sqlite:///mlflow.db"
#: What MLflow waits for by itself, minutes or what `Retry-After` says, would hold up a task. It
#: also sends again what may have been taken; here every entry waits in the outbox.
HTTP_LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
LEAST = 1.0  # seconds that any request to a server gets
LEAST_OF_DATABASE = 60.0  # the first makes its tables
SERVERS = frozenset({"postgresql", "mysql", "mssql"})  # of databases
LONGEST_OF_DATABASE = 10.0  # for a connection
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
OVERLOADS = frozenset(
    {"DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "TEMPORARILY_UNAVAILABLE"}
)

#: Tag of a run that is open: when its process was alive, see `beat`.
HEARTBEAT = "siqvl.heartbeat"
#: Of a run whose work another attempt has taken over, which one: it ends KILLED, whatever else.
REPLACED = "siqvl.replaced_by_attempt"
#: Tag of a run that has failed, or was ended: why.
REASON = "siqvl.error"

T = TypeVar("T")
_set: dict[str, str] = {}  # what this process has set, and its user has not
#: Seconds that tasks of this process have waited for a store in its outage, by its address.
waited: defaultdict[str, float] = defaultdict(float)


class Failure(enum.Enum):
    """What an exception says of the store, and of what was sent to it."""

    AWAY = enum.auto()  # nobody answers, or the store asks to wait
    FAULT = enum.auto()  # the store failed on it, or forbids it
    REFUSED = enum.auto()  # the store does not take it, now or later


_CODES = {REFUSALS: Failure.REFUSED, OVERLOADS: Failure.AWAY}


def tracking_uri(recipe: Recipe) -> str:
    """Return the recipe's store, MLFLOW_TRACKING_URI, or a sqlite file in the working directory."""
    named = recipe.tracking.uri, os.environ.get("MLFLOW_TRACKING_URI")
    return with_home(named[0] or named[1] or DEFAULT_STORE)


def run_store(uri: str, patience: float | None = None) -> Any:
    """A client of one store's runs, as `client`; a server's does not import MLflow.

    Returns:
        A `RestStore`, or an `MlflowClient` where MLflow itself is needed to reach the store.
    """
    if is_server(uri) and is_plain():
        _limit(patience)
        return RestStore(uri)
    return client(uri, patience)


def client(uri: str, patience: float | None = None) -> MlflowClient:
    """A client of one store, whose requests fail soon where nobody answers.

    Args:
        patience: seconds that a request to a server may take; it holds for all clients of this
            process, and MLFLOW_HTTP_REQUEST_TIMEOUT wins.
    """
    _limit(patience)
    from mlflow import MlflowClient

    if not uri.startswith(SQLITE):
        return MlflowClient(tracking_uri=uri)
    file = _sqlite_file(uri)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
    # two processes that make the tables of one file crash each other
    with locked(file.with_name(f".{file.name}.lock"), LEAST_OF_DATABASE):
        return MlflowClient(tracking_uri=uri)


def _limit(patience: float | None) -> None:
    """Set how long requests of this process may take; its user's own settings win."""
    limits = dict(HTTP_LIMITS)
    if patience is not None or TIMEOUT not in os.environ:
        limits[TIMEOUT] = str(math.ceil(max(30.0 if patience is None else patience, LEAST)))
    for name, value in limits.items():
        if os.environ.get(name) in (None, _set.get(name)):
            os.environ[name] = _set[name] = value


def least(uri: str) -> float:
    """Seconds of silence that are no outage, however short the patience."""
    return LEAST if is_server(uri) else LEAST_OF_DATABASE


def is_server(uri: str) -> bool:
    """Whether a store is asked by HTTP."""
    return uri.startswith(("http://", "https://"))


def within(seconds: float, uri: str, ask: Callable[[], T]) -> T:
    """Return what a question to a server gives, or fail if that takes too long.

    A database is waited for: the first question makes its tables.

    Args:
        seconds: in all that tasks wait in one outage; each of them waits for 1 at least.

    Raises:
        UserError: there was no answer by then.
    """
    if least(uri) != LEAST:
        given = ask()
        waited.pop(uri, None)
        return given
    begin = time.monotonic()
    try:
        given = _answered(max(seconds - waited[uri], LEAST), ask)
    except BaseException as error:
        waited[uri] += time.monotonic() - begin
        if not isinstance(error, _NoAnswer):
            raise
        raise UserError(
            f"MLflow store {without_password(uri)} gave no answer within {seconds:g} seconds "
            "(`tracking.patience_seconds`)"
        ) from None
    waited.pop(uri, None)
    return given


class _NoAnswer(TimeoutError):
    """A question has not been answered in time."""


def _answered(seconds: float, ask: Callable[[], T]) -> T:
    """What a question gives, which goes on in a thread of its own if that takes too long."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="mlflow-question", daemon=True).start()
    if not wait([answer], seconds).done:
        raise _NoAnswer(f"it gave no answer within {seconds:g} seconds")
    return answer.result()


def _connect(uri: str) -> None:
    """Connect to a database once, and leave it; MLflow would try for 100 seconds, or for ever."""
    from sqlalchemy import NullPool, create_engine

    create_engine(uri, poolclass=NullPool).connect().close()


@contextmanager
def opened(
    uri: str,
    purpose: str,
    patience: float | None = None,
    connect: Callable[..., Any] = client,
) -> Iterator[Any]:
    """A client of one store, whose failure is one line.

    Args:
        purpose: what cannot be done with the store then, such as "read".
        patience: see `client`.
        connect: `client`, or `run_store` where only runs are asked for.

    Raises:
        UserError: the store does not answer, or refuses.
    """
    check_address(uri)
    try:
        if uri.partition(":")[0].partition("+")[0] in SERVERS:
            seconds = LONGEST_OF_DATABASE if patience is None else patience
            _answered(max(min(seconds, LONGEST_OF_DATABASE), LEAST), partial(_connect, uri))
        yield connect(uri) if patience is None else connect(uri, patience)
    except Exception as error:
        if not isinstance(error, OSError | ImportError | RestError) and not _of_library(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"MLflow store {without_password(uri)} cannot be {purpose}: {masked(reason, uri)}"
        ) from None


def _of_library(error: Exception) -> bool:
    """Whether MLflow or its database's library raised it; one that is not imported did not."""
    of_mlflow, of_database = sys.modules.get("mlflow.exceptions"), sys.modules.get("sqlalchemy.exc")
    return (of_mlflow is not None and isinstance(error, of_mlflow.MlflowException)) or (
        of_database is not None and isinstance(error, of_database.SQLAlchemyError)
    )


def is_missing_file(uri: str) -> bool:
    """Whether a store would be a sqlite file that is not there; MLflow makes one at first use."""
    return uri.startswith(SQLITE) and not _sqlite_file(uri).is_file()


def _sqlite_file(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE).partition("?")[0])


def store_time(uri: str) -> float:
    """Seconds since 1970 by the clock of the store, which is the same whoever asks."""
    scheme = uri.partition(":")[0].partition("+")[0]
    if is_server(uri) and is_plain():
        said = sent(uri, "GET", "/health").headers.get("Date")
        return parsedate_to_datetime(said).timestamp() if said else time.time()
    if scheme in ("http", "https"):
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        said = http_request(get_default_host_creds(uri), "/health", "GET").headers.get("Date")
        return parsedate_to_datetime(said).timestamp() if said else time.time()
    if scheme in ("postgresql", "mysql", "mssql"):
        from sqlalchemy import NullPool, create_engine, func, select

        with create_engine(uri, poolclass=NullPool).connect() as database:
            return timegm(database.execute(select(func.now())).scalar_one().utctimetuple())
    return time.time()  # a file has that of its machine


def beat(uri: str) -> str:
    """What tag `siqvl.heartbeat` says now: seconds by the store's clock, milliseconds by ours."""
    return f"{store_time(uri):.0f} {time.time_ns() // 1_000_000}"


def forget_reason(store: Any, run_id: str, tags: Mapping[str, str]) -> None:
    """Take away why a run has failed, which goes on or has come to its end all the same.

    Args:
        tags: those that the run has.
    """
    if REASON in tags:
        try:
            store.delete_tag(run_id, REASON)
        except Exception as error:
            # else somebody was first
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                raise


def is_refusal(error: Exception) -> bool:
    """Return whether an error is the store's refusal, and not its silence."""
    return getattr(error, "error_code", None) in REFUSALS


def is_gone(error: Exception) -> bool:
    """Return whether an error says that what was asked for, such as a run, is not in the store."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def failure(error: BaseException) -> Failure:
    """What went wrong, by the exception and by those that led to it."""
    import requests

    code = str(getattr(error, "error_code", ""))  # of MLflow's exceptions, and `RestError`
    for codes, kind in _CODES.items():
        if code in codes:
            return kind
    for one in _causes(error):
        if isinstance(one, requests.RequestException):
            return _of_request(one)
        if isinstance(one, ConnectionError | TimeoutError):
            return Failure.AWAY
    if code:
        return Failure.FAULT
    if isinstance(
        error, ValueError | TypeError | LookupError | ArithmeticError | FileNotFoundError
    ):
        return Failure.REFUSED
    # of libraries that upload, which have classes of their own
    away = re.search("Connect|Timeout|Endpoint", type(error).__name__)
    return Failure.AWAY if away else Failure.FAULT


def _of_request(error: requests.RequestException) -> Failure:
    import requests

    said = re.search(r"too many (\d+) error responses", str(error))
    status = (
        error.response.status_code if error.response is not None else int(said[1]) if said else 0
    )
    if status in (401, 403, 500):
        return Failure.FAULT
    if status in (408, 429) or status > 500 or isinstance(error, requests.ConnectionError):
        return Failure.AWAY
    away = isinstance(error, requests.Timeout | requests.exceptions.ChunkedEncodingError)
    return Failure.AWAY if away else Failure.REFUSED


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def masked(text: str, uri: str) -> str:
    """A text in which the address of a store stands without its password."""
    return text.replace(uri.rstrip("/"), without_password(uri).rstrip("/"))
