"""Requests to an MLflow server, and what went wrong with one, as MLflow's own client tells it.

`import mlflow` takes a second and a half of a core, pandas, SQLAlchemy and FastAPI with it, which
is most of what a task that computes little costs. The REST API is MLflow's documented one.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests

API = "/api/2.0/mlflow"
#: Variables of MLflow that are heeded here, or do not matter to a request. Whoever sets another
#: one (a proxy's signature, a plugin for logging in, a workspace) is served by MLflow's own client.
HEEDED = frozenset(
    {
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_INSECURE_TLS",
        "MLFLOW_TRACKING_SERVER_CERT_PATH",
        "MLFLOW_TRACKING_CLIENT_CERT_PATH",
        "MLFLOW_HTTP_REQUEST_TIMEOUT",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
        "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER",
        "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT",
        "MLFLOW_LOGGING_LEVEL",
    }
)
#: Of answers that ask to come again; MLflow's client names them by the number alone.
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
#: What an answer that gives no code of its own means to MLflow.
CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
}


class RestError(Exception):
    """A request failed, or was refused.

    Attributes:
        error_code: MLflow's name for it, as of its `MlflowException`.
    """

    def __init__(self, message: str, error_code: str = "INTERNAL_ERROR") -> None:
        super().__init__(message)
        self.error_code = error_code


def is_plain() -> bool:
    """Whether nothing in this process's environment asks for more than plain requests."""
    own = {name for name in os.environ if name.startswith("MLFLOW_")}
    return own <= HEEDED and not Path("~/.mlflow/credentials").expanduser().exists()


def asked(uri: str, method: str, path: str, **content: Any) -> dict[str, Any]:
    """Ask an endpoint of the tracking API, and return its answer.

    Args:
        path: behind `/api/2.0/mlflow/`.
        content: `params` or `json`, as `requests` takes them.

    Raises:
        RestError: there is no answer, or the server refuses.
    """
    answer = sent(uri, method, f"{API}/{path}", **content)
    try:
        found = json.loads(answer.text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RestError(f"the answer of {path} is no JSON object: {answer.text[:200]!r}")
    return found


def sent(
    uri: str, method: str, path: str, headers: dict[str, str] | None = None, **content: Any
) -> requests.Response:
    """Send a request, and return the answer if it is a good one; see `asked`."""
    import requests

    url = f"{uri.rstrip('/')}{path}"
    identity = _identity()
    identity["headers"] = {**identity.get("headers", {}), **(headers or {})}
    try:
        answer = _session(os.getpid()).request(
            method, url, timeout=_timeout(), verify=_verify(), **identity, **content
        )
        if answer.status_code in TRANSIENT:
            said = f"too many {answer.status_code} error responses"
            raise requests.HTTPError(said, response=answer)
    except requests.RequestException as error:
        raise RestError(f"API request to {url} failed with exception {error}") from error
    if answer.ok:
        return answer
    try:
        said = json.loads(answer.text)
        code, message = said["error_code"], said.get("message", "")
    except (ValueError, TypeError, KeyError):
        code, message = CODES.get(answer.status_code, "INTERNAL_ERROR"), answer.text[:500]
        message = f"API request to {url} failed with error code {answer.status_code}: {message}"
        raise RestError(message, code) from None
    raise RestError(f"{code}: {message}", code)


@lru_cache(maxsize=4)
def _session(process: int) -> requests.Session:
    """Connections that this process keeps; those of one that it was forked from are not its own."""
    import requests

    session = requests.Session()
    session.headers["User-Agent"] = "siqvl"
    return session


def _timeout() -> float:
    return float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "120"))


def _verify() -> bool | str:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True


def _identity() -> dict[str, Any]:
    """Who asks: a name and password, or a token; and a certificate."""
    names = ("USERNAME", "PASSWORD", "TOKEN", "CLIENT_CERT_PATH")
    user, password, token, file = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in names)
    identity: dict[str, Any] = {"cert": file} if file else {}
    if user and password:
        identity["auth"] = (user, password)
    elif token:
        identity["headers"] = {"Authorization": f"Bearer {token}"}
    return identity
