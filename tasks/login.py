"""The login of a cluster that wants one: what is missing is one sentence, before anything starts.

flytekit's own words come late, after everything was imported, and as a traceback; where it has no
token and nobody is at a terminal, it waits for a browser for ever.
"""

from __future__ import annotations

import logging
import sys
import webbrowser

import grpc
from flytekit.clients.auth.keyring import KeyringStore
from flytekit.clients.auth_helper import RemoteClientConfigStore, get_authenticator, get_channel
from flytekit.configuration import AuthType, PlatformConfig
from flytekit.configuration.file import ConfigFile
from flytekit.configuration.internal import Credentials

from siqvl.errors import UserError, one_line

SECONDS = 5.0
#: Names that flytekit has for one way.
CLIENT = (AuthType.CLIENTSECRET, AuthType.CLIENT_CREDENTIALS, AuthType.BASIC)
COMMAND = (AuthType.EXTERNALCOMMAND, AuthType.EXTERNAL_PROCESS)
BROWSER = (AuthType.PKCE, AuthType.STANDARD)
WAYS = "docs/operations.md has the ways to log in"


def platform_of(config: ConfigFile | None) -> PlatformConfig:
    """Where the cluster is and how to log in, as flytekit reads it.

    Raises:
        UserError: the file of the client's secret cannot be read.
    """
    try:
        return PlatformConfig.auto(config)
    except OSError as error:
        raise UserError(
            f"the client's secret cannot be read from {error.filename} ({error.strerror}): "
            "see `client_secret_location` under [credentials] in flyte.config"
        ) from None


def check_login(platform: PlatformConfig, config: ConfigFile | None) -> None:
    """Look whether the cluster wants a login, and whether there is one or somebody to give it.

    Raises:
        UserError: there is none, or the cluster refuses it.
    """
    channel = get_channel(platform)
    try:
        if not _wants_login(channel):
            return
        wanted = f"the Flyte cluster at {platform.endpoint} wants a login"
        mode = _mode(platform)
        if mode in CLIENT:
            if missing := _missing_of_client(platform, config):
                raise UserError(f"{wanted}, and {missing}; {WAYS}")
            _log_in(platform, channel, wanted)
        elif mode in COMMAND and not platform.command:
            raise UserError(f"{wanted}, and `command` under [credentials] is not set; {WAYS}")
        elif mode in BROWSER and not (_has_token(platform) or _has_browser()):
            raise UserError(
                f"{wanted}, and there is no token here, and no terminal with a browser to get one: "
                "set `auth_mode` under [credentials] in flyte.config to DeviceFlow, or to "
                f"ClientSecret with `client_id` and `client_secret_env_var`; {WAYS}"
            )
    finally:
        channel.close()


def _wants_login(channel: grpc.Channel) -> bool:
    from flyteidl.admin.project_pb2 import ProjectListRequest
    from flyteidl.service.admin_pb2_grpc import AdminServiceStub

    try:
        AdminServiceStub(channel).ListProjects(ProjectListRequest(limit=1), timeout=SECONDS)
    except grpc.RpcError as error:
        return bool(error.code() is grpc.StatusCode.UNAUTHENTICATED)
    return False


def _mode(platform: PlatformConfig) -> AuthType | None:
    """The way to log in; None for one that a plugin of flytekit brings."""
    mode = platform.auth_mode
    return AuthType.__members__.get(mode.upper()) if isinstance(mode, str) else mode


def _missing_of_client(platform: PlatformConfig, config: ConfigFile | None) -> str:
    if not platform.client_id:
        return "`client_id` under [credentials] in flyte.config is not set"
    if platform.client_credentials_secret:
        return ""
    if variable := Credentials.CLIENT_CREDENTIALS_SECRET_ENV_VAR.read(config):
        return f"the variable {variable}, which is to hold the client's secret, is not set"
    return (
        "the client's secret is not there: set `client_secret_env_var` or `client_secret_location` "
        "under [credentials] in flyte.config"
    )


def _log_in(platform: PlatformConfig, channel: grpc.Channel, wanted: str) -> None:
    store = RemoteClientConfigStore(channel)
    logging.disable(logging.ERROR)  # flytekit logs the whole answer, whatever is in it
    try:
        get_authenticator(platform, store).refresh_credentials()
    except Exception as error:
        said = one_line(error).replace(platform.client_credentials_secret or "\0", "***")[:200]
        raise UserError(
            f"{wanted}, and refuses client `{platform.client_id}` ({said}): check `client_id` "
            f"under [credentials] in flyte.config and its secret; {WAYS}"
        ) from None
    finally:
        logging.disable(logging.NOTSET)


def _has_token(platform: PlatformConfig) -> bool:
    return KeyringStore.retrieve(platform.endpoint) is not None


def _has_browser() -> bool:
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return sys.stdin is not None and sys.stdin.isatty()
