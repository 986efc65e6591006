"""What failures of an MLflow store mean, and what its requests may take."""

import os

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from siqvl.tracking.store import HTTP_LIMITS, TIMEOUT, Failure, client, failure, masked


def wrapped(cause: Exception) -> Exception:
    """As MLflow does it with whatever a request raises."""
    try:
        try:
            raise cause
        except Exception as error:
            raise MlflowException(f"API request failed with exception {error}")  # noqa: B904
    except MlflowException as error:
        return error


def http_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} for url", response=response)


def too_many(status: int) -> Exception:
    return requests.exceptions.RetryError(f"Caused by: too many {status} error responses")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError("reset"), Failure.AWAY),
        (wrapped(requests.ConnectionError("refused")), Failure.AWAY),
        (wrapped(requests.ReadTimeout("late")), Failure.AWAY),
        *((wrapped(too_many(status)), Failure.AWAY) for status in (408, 429, 502, 503, 504)),
        (http_error(429), Failure.AWAY),
        (http_error(503), Failure.AWAY),
        (MlflowException("busy", codes.TEMPORARILY_UNAVAILABLE), Failure.AWAY),
        (MlflowException("slowly", codes.REQUEST_LIMIT_EXCEEDED), Failure.AWAY),
        (wrapped(too_many(500)), Failure.FAULT),
        (http_error(403), Failure.FAULT),
        (MlflowException("broken"), Failure.FAULT),
        (MlflowException("you may not", codes.PERMISSION_DENIED), Failure.FAULT),
        (MlflowException("who are you", codes.UNAUTHENTICATED), Failure.FAULT),
        (MlflowException("no such page", codes.ENDPOINT_NOT_FOUND), Failure.FAULT),
        (MlflowException("it was 1", codes.INVALID_PARAMETER_VALUE), Failure.REFUSED),
        (MlflowException("no such run", codes.RESOURCE_DOES_NOT_EXIST), Failure.REFUSED),
        (http_error(400), Failure.REFUSED),
        (ValueError("no such number"), Failure.REFUSED),
        (OverflowError("too large"), Failure.REFUSED),
        (FileNotFoundError("no such file"), Failure.REFUSED),
    ],
)
def test_only_silence_and_overload_count_as_away(error: Exception, kind: Failure) -> None:
    assert failure(error) is kind


def refused_while_away() -> None:
    try:
        raise requests.ConnectionError("refused")
    except requests.ConnectionError:
        raise MlflowException("it was 1", codes.INVALID_PARAMETER_VALUE)  # noqa: B904


def test_a_refusal_in_the_handling_of_an_outage_is_one() -> None:
    with pytest.raises(MlflowException) as caught:
        refused_while_away()
    assert failure(caught.value) is Failure.REFUSED


def test_requests_are_as_patient_as_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*HTTP_LIMITS, TIMEOUT):
        monkeypatch.delenv(name, raising=False)
    client("http://127.0.0.1:9", 2.5)
    assert os.environ[TIMEOUT] == "3"  # MLflow takes whole seconds
    assert {name: os.environ[name] for name in HTTP_LIMITS} == HTTP_LIMITS
    client("http://127.0.0.1:9", 0.1)
    assert os.environ[TIMEOUT] == "1"
    client("http://127.0.0.1:9")  # whoever has no recipe changes nothing
    assert os.environ[TIMEOUT] == "1"
    monkeypatch.setenv(TIMEOUT, "77")
    client("http://127.0.0.1:9", 5.0)
    assert os.environ[TIMEOUT] == "77"


def test_a_password_is_masked_in_what_mlflow_says() -> None:
    said = "API request to https://me:s/e@host/api/2.0/mlflow/runs/create failed"
    assert "s/e" not in masked(said, "https://me:s/e@host/")
    assert "https://me:***@host/api" in masked(said, "https://me:s/e@host/")
