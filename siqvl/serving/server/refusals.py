"""What a request is told that is not answered, in the shape in which OpenAI's clients expect it."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

#: The type that OpenAI's errors have beside a status.
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Refused(Exception):
    """A request that gets a sentence in place of an answer.

    Attributes:
        status: of HTTP.
        message: one sentence, without paths and without what happened inside.
        param: the parameter that is wrong.
        code: a word for programs.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code, self.retry_after = param, code, retry_after

    @property
    def content(self) -> dict[str, Any]:
        """Return the JSON object that is sent."""
        kind = TYPES.get(self.status) or (
            "server_error" if self.status >= 500 else "invalid_request_error"
        )
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def response(self) -> JSONResponse:
        """Return what is sent."""
        headers = {} if self.retry_after is None else {"Retry-After": f"{self.retry_after}"}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.content, self.status, headers)


def failed() -> Refused:
    """What is said of a fault of ours; the log has the rest."""
    return Refused(500, "the server failed at this request; its log says why", code="internal")


def too_late(seconds: float) -> Refused:
    """What is said when a request has used up its time."""
    return Refused(
        504, f"the answer took longer than {seconds:g} s; ask for fewer tokens", code="timeout"
    )


def stopping() -> Refused:
    """What is said while the server ends."""
    return Refused(503, "this server is stopping; ask again", code="stopping", retry_after=1)
