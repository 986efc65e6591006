"""The paths of a server."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.routing import Route

from siqvl.serving.server.answered.chat_completions import Chat
from siqvl.serving.server.chat_page import chat_page
from siqvl.serving.server.observed import Observed
from siqvl.serving.server.refusals import Refused, failed
from siqvl.serving.server.service import Service


def application(service: Service) -> Observed:
    """Makes the ASGI application."""
    # pages that describe a server load their scripts from elsewhere
    app = FastAPI(title="SiQ-VL", docs_url=None, redoc_url=None, openapi_url=None)
    page = chat_page()

    @app.api_route("/", include_in_schema=False, methods=["GET", "HEAD"])
    async def at_root() -> Response:
        return page

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> dict[str, str]:
        if not service.engine.alive and not service.door.closed:
            raise Refused(500, "the engine does not run any more", code="internal")
        return {"status": "alive"}

    @app.api_route("/ready", methods=["GET", "HEAD"])
    async def ready() -> dict[str, str]:
        if not service.ready:
            raise Refused(503, "this server takes no requests", code="stopping")
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        service.keys.check(request.headers.get("authorization"))
        return {"object": "list", "data": [_model(service)]}

    @app.get("/v1/models/{name}")
    async def model(name: str, request: Request) -> dict[str, Any]:
        service.keys.check(request.headers.get("authorization"))
        if name != service.name:
            said = f"there is no model `{name[:100]}` here; there is `{service.name}`"
            raise Refused(404, said, param="model", code="model_not_found")
        return _model(service)

    chat = Route("/v1/chat/completions", Chat(service), methods=["POST"])
    app.router.routes.append(chat)
    _in_one_shape(app)
    return Observed(app, service)


def _model(service: Service) -> dict[str, Any]:
    return {
        "id": service.name,
        "object": "model",
        "created": service.created,
        "owned_by": "siqvl",
        "max_model_len": service.engine.max_length,
    }


def _in_one_shape(app: FastAPI) -> None:
    """Has every error look as OpenAI's do."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error.response

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        said = {404: "there is nothing at this path", 405: "this path has another method"}
        message = said.get(error.status_code, "the request is not understood")
        return Refused(error.status_code, message).response

    @app.exception_handler(Exception)
    async def of_ours(request: Request, error: Exception) -> Response:
        return failed().response
