"""A checkpoint's folder -> a process that serves it."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from siqvl.checkpoint import read_card
from siqvl.data.encode import encode_prompt
from siqvl.data.schema import message
from siqvl.device import Precision, best_device, has_bf16
from siqvl.errors import UserError
from siqvl.generation.completions import load_to_answer
from siqvl.generation.engine import Engine
from siqvl.generation.loop import end_ids
from siqvl.generation.request import Sampling
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.serving.server.api_keys import VARIABLE, ApiKeys
from siqvl.serving.server.graceful import Server
from siqvl.serving.server.server_settings import ServerSettings
from siqvl.serving.server.service import Service
from siqvl.serving.settings import ServingSettings

#: Hosts that no other machine reaches.
OWN = ("127.0.0.1", "localhost", "::1")


def serve_checkpoint(checkpoint: Path, settings: ServerSettings, keys: ApiKeys) -> None:
    """Loads a checkpoint and answers requests until a signal ends it.

    Raises:
        UserError: the checkpoint is none, or nobody is to reach the server as it is set.
    """
    if settings.host not in OWN and not len(keys) and not settings.open:
        raise UserError(
            f"{settings.host} lets other machines ask, without any API key: set {VARIABLE} or "
            "`--api-keys-file`, or say `--open`"
        )
    _check_address(settings.host, settings.port)  # before what takes long
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("siqvl").setLevel(logging.INFO)
    card = read_card(checkpoint)
    limits = ServingSettings.of(card.recipe)
    model, processor = load_to_answer(checkpoint, limits.attention, _precision(settings.precision))
    name = settings.name or f"{card.recipe_name}-{card.stage.value}"
    with made_service(model, processor, settings, limits, keys, name=name) as service:
        _warm_up(service)
        server = Server(service)
        try:
            server.run()
        except SystemExit:  # as uvicorn ends a server that cannot listen
            if server.started:
                raise
    if not server.started:
        raise UserError(f"nothing can listen at {settings.host}:{settings.port}; the log says why")


def _check_address(host: str, port: int) -> None:
    """Takes an address for a moment.

    Raises:
        UserError: it is taken, not allowed, or none of this machine.
    """
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as taken:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                taken.bind(address)
    except OSError as error:
        raise UserError(
            f"nothing can listen at {host}:{port} ({error.strerror}): give another `--host` or "
            "`--port`"
        ) from None


def made_service(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    settings: ServerSettings,
    limits: ServingSettings,
    keys: ApiKeys,
    *,
    name: str,
) -> Service:
    """Starts the engine of a loaded model, with what the recipe says where nobody set it.

    Args:
        limits: the recipe's.

    Raises:
        UserError: longer conversations than the model reads are to be read.
    """
    reads = model.config.text_config.max_position_embeddings
    if settings.max_length is not None and settings.max_length > reads:
        raise UserError(
            f"`--max-length` is {settings.max_length:,}, but the model reads {reads:,} tokens"
        )
    settings = settings.model_copy(
        update={
            "places": settings.places or limits.batch_size,
            "max_new_tokens": settings.max_new_tokens or limits.max_new_tokens,
            "max_request_pixels": settings.max_request_pixels or limits.max_request_pixels,
        }
    )
    assert settings.places is not None
    engine = Engine(
        model,
        processor,
        places=settings.places,
        waiting=settings.waiting,
        max_length=settings.max_length,
    )
    ends = frozenset(end_ids(model, processor.tokenizer.eos_token_id))
    return Service(settings, engine, processor, limits.limits, name, ends, keys)


def _precision(name: str) -> Precision:
    if name != "auto":
        return name  # type: ignore[return-value]  # the settings allow no other
    return "bf16" if best_device() == "cuda" and has_bf16() else "fp32"


def _warm_up(service: Service) -> None:
    """Writes a token before anybody asks: what comes first takes longest."""
    row = {"id": "first", "prompt": [message("user", "?")], "images": []}
    item = {"input_ids": encode_prompt(row, service.processor).input_ids, "images": []}
    for piece in service.engine.stream(item, Sampling(max_new_tokens=1)):
        if piece.finish == "error":
            raise UserError("the model fails at its first token; the log says why")
