"""One friendly line where `pyflyte` is about to talk to a cluster that is not there.

pyflyte imports the tasks before it connects, and would end in a long traceback.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from typing import Any

import click
from flytekit.configuration import ImageConfig
from flytekit.configuration.file import get_config_file
from flytekit.constants import CopyFileDetection

from siqvl.errors import UserError
from siqvl.recipe.compute import Kind

SECONDS = 5.0
HOW = (
    "name one with `pyflyte -c flyte.config …`, where [platform] url says where it is; "
    "`flytectl demo start` starts one on this machine, at the address that flyte.config has"
)


def check_cluster() -> None:
    """Look for the cluster, if this process is a `pyflyte` command that needs one.

    Raises:
        UserError: nothing names it, it does not answer, an image has no name there, or the cluster
            wants a login that is not there.
    """
    context = click.get_current_context(silent=True)
    if context is None or not _needs_cluster(context):
        return
    config = get_config_file(_of(context, "config_file"))
    if config is None and not os.environ.get("FLYTE_PLATFORM_URL"):
        raise UserError(f"no Flyte cluster is configured: {HOW}")
    from tasks.login import check_login, platform_of

    platform = platform_of(config)
    host, port = _address(platform.endpoint)
    try:
        socket.create_connection((host, port), timeout=SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"no Flyte cluster answers at {host}:{port} ({reason}): {HOW}") from None
    given = _of(context, "image_config")
    images = [*ImageConfig.auto(config).images, *(given.images if given else [])]
    if missing := sorted({kind.value for kind in Kind} - {image.name for image in images}):
        raise UserError(
            f"no image is named for {', '.join(missing)}: add `{missing[0]} = registry/name:tag` "
            f"under [images] in flyte.config, or give --image {missing[0]}=registry/name:tag"
        )
    check_login(platform, config)


def _needs_cluster(context: click.Context) -> bool:
    if "--help" in sys.argv:
        return False
    if context.info_name != "register":
        return bool(getattr(context.obj, "is_remote", False))
    given = context.params
    copies = given.get("copy") is not CopyFileDetection.NO_COPY and not given.get("non_fast")
    return copies or not given.get("dry_run")  # dry or not, what is copied is uploaded


def _address(endpoint: str) -> tuple[str, int]:
    """`dns:///flyte.example.org:443` -> host and port; 443 where none is given."""
    name = re.sub(r"^\w+:/*", "", endpoint) if ":/" in endpoint else endpoint
    name = name.partition("/")[0]
    host, _, port = name.rpartition(":")
    host, port = (host, port) if port.isdigit() and host else (name, "443")
    return host.strip("[]"), int(port)  # brackets are those of an IPv6 address


def _of(context: click.Context, name: str) -> Any:
    """What a command was given: `run` keeps it in an object, `register` in a mapping."""
    if isinstance(context.obj, dict):
        return context.obj.get(name) or context.params.get(name)
    return getattr(context.obj, name, None)
