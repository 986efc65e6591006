"""`siqvl serve`: a checkpoint behind OpenAI's protocol, for its clients and for a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from siqvl.serving.server.server_settings import ServerSettings

Command = Callable[..., Any]


def _options(command: Command) -> Command:
    """An option for each of the settings, with its words and its default."""
    for name, field in reversed(ServerSettings.model_fields.items()):
        annotation: Any = field.annotation
        if type(None) in get_args(annotation):  # `X | None`
            annotation = get_args(annotation)[0]
        kind = click.Choice(get_args(annotation)) if get_origin(annotation) is Literal else None
        option = f"--{name.replace('_', '-')}"
        if annotation is bool:
            command = click.option(option, is_flag=True, help=field.description)(command)
            continue
        command = click.option(
            option,
            type=kind or _plain(annotation),
            default=field.default,
            show_default=field.default is not None,
            help=field.description,
        )(command)
    return command


def _plain(annotation: Any) -> type:
    """The type of an option's values; `PositiveInt` is int with a condition."""
    found = get_args(annotation)[0] if get_args(annotation) else annotation
    assert isinstance(found, type)
    return found


@click.command()
@click.argument("checkpoint")
@click.option(
    "--api-keys-file",
    type=click.Path(path_type=Path),
    help="Who may ask: a key a line.  [default: those of SIQVL_API_KEYS, commas between]",
)
@click.option(
    "--tracking-uri", help="Store of `models:/` and `runs:/`.  [default: MLFLOW_TRACKING_URI]"
)
@_options
def serve(
    checkpoint: str, api_keys_file: Path | None, tracking_uri: str | None, **values: Any
) -> None:
    """Answer requests at http://HOST:PORT/v1 with CHECKPOINT, as OpenAI's API does.

    CHECKPOINT is a folder, a hub id, models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID. A page
    to chat with it is at http://HOST:PORT/. SIGTERM lets running answers end.
    """
    from pydantic import ValidationError

    from siqvl.errors import UserError
    from siqvl.recipe import explain
    from siqvl.registry.resolve import resolve_checkpoint
    from siqvl.serving.server.api_keys import ApiKeys

    try:
        settings = ServerSettings(**values)
    except ValidationError as error:
        said = explain(error, ServerSettings)
        raise UserError(f"options of `siqvl serve`: {said}") from None
    keys = ApiKeys.read(api_keys_file)

    from siqvl.serving.server.serve_checkpoint import serve_checkpoint

    serve_checkpoint(resolve_checkpoint(checkpoint, tracking_uri=tracking_uri), settings, keys)
