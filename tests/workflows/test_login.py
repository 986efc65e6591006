"""Logging in to a cluster: flytekit reads what the docs say, and what is missing is named."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from flyteidl.admin.project_pb2 import Projects
from flyteidl.service import admin_pb2_grpc, auth_pb2, auth_pb2_grpc
from flytekit.clients.auth_helper import get_authenticator
from flytekit.configuration import AuthType, PlatformConfig
from flytekit.configuration.file import ConfigFile

from siqvl.errors import UserError
from tasks import login
from tasks.login import check_login, platform_of

ROOT = Path(__file__).parents[2]
SECRET = "s3cr3t-of-the-client"
VARIABLE = "FLYTE_CLIENT_SECRET"


def documented() -> dict[str, str]:
    """The ways to log in that docs/operations.md shows, by what they set `auth_mode` to."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```ini\n(.*?)```", text, re.DOTALL)
    found = {re.findall(r"auth_mode = (\w+)", block)[0]: block for block in blocks}
    assert found.keys() == {"Pkce", "DeviceFlow", "ClientSecret"}
    return found


def read(folder: Path, text: str) -> tuple[PlatformConfig, ConfigFile]:
    file = folder / "flyte.config"
    file.write_text(text, encoding="utf-8")
    config = ConfigFile(str(file))
    return platform_of(config), config


@pytest.mark.parametrize("mode", ["Pkce", "DeviceFlow", "ClientSecret"])
def test_flytekit_reads_what_is_documented(tmp_path: Path, monkeypatch, mode: str) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)
    platform, _ = read(tmp_path, documented()[mode])
    assert platform.endpoint == "flyte.example.org"
    assert platform.insecure is False
    assert AuthType[str(platform.auth_mode).upper()].value == mode
    wanted = ("siqvl-ci", SECRET) if mode == "ClientSecret" else (None, None)
    assert (platform.client_id, platform.client_credentials_secret) == wanted
    made = type(get_authenticator(platform, _NoStore())).__name__
    expected = {"Pkce": "PKCE", "DeviceFlow": "DeviceCode", "ClientSecret": "ClientCredentials"}
    assert made == f"{expected[mode]}Authenticator"


class _NoStore:
    def get_client_config(self) -> Any:
        from flytekit.clients.auth.authenticator import ClientConfig

        return ClientConfig(
            token_endpoint="https://idp/token",
            authorization_endpoint="https://idp/authorize",
            redirect_uri="http://localhost",
            client_id="flytectl",
            device_authorization_endpoint="https://idp/device",
        )


def test_the_sandbox_is_read_as_it_is(tmp_path: Path) -> None:
    platform, _ = read(tmp_path, (ROOT / "flyte.config").read_text(encoding="utf-8"))
    assert (platform.endpoint, platform.insecure) == ("localhost:30080", True)


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    of_file = f"client_secret_location = {tmp_path}/secret"
    text = re.sub(r"client_secret_env_var = \w+", of_file, documented()["ClientSecret"])
    assert read(tmp_path, text)[0].client_credentials_secret == SECRET
    (tmp_path / "secret").unlink()
    with pytest.raises(UserError, match=r"secret cannot be read from .*/secret \(No such file"):
        read(tmp_path, text)


@dataclass
class Guarded(admin_pb2_grpc.AdminServiceServicer, auth_pb2_grpc.AuthMetadataServiceServicer):
    """A cluster that wants a token, and the service that gives one for the right secret."""

    port: int = 0
    token_endpoint: str = ""
    guards: bool = True
    forms: list[str] = field(default_factory=list)  # of those who asked for a token

    def ListProjects(self, request: Any, context: Any) -> Projects:
        if self.guards and ("authorization", "Bearer t0ken") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "token parse error")
        return Projects()

    def GetOAuth2Metadata(self, request: Any, context: Any) -> auth_pb2.OAuth2MetadataResponse:
        return auth_pb2.OAuth2MetadataResponse(token_endpoint=self.token_endpoint)

    def GetPublicClientConfig(
        self, request: Any, context: Any
    ) -> auth_pb2.PublicClientAuthConfigResponse:
        return auth_pb2.PublicClientAuthConfigResponse(client_id="flytectl")


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    cluster = Guarded()

    class Tokens(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            import base64

            length = int(self.headers["Content-Length"])
            cluster.forms.append(self.rfile.read(length).decode())
            given = base64.b64decode(self.headers["Authorization"].partition(" ")[2]).decode()
            right = given == f"siqvl-ci:{SECRET}"
            answer = {"access_token": "t0ken", "expires_in": 60} if right else {"error": given}
            self.send_response(200 if right else 401)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as tokens:
        threading.Thread(target=tokens.serve_forever, daemon=True).start()
        cluster.token_endpoint = f"http://127.0.0.1:{tokens.server_port}/token"
        server = grpc.server(ThreadPoolExecutor(4))
        admin_pb2_grpc.add_AdminServiceServicer_to_server(cluster, server)
        auth_pb2_grpc.add_AuthMetadataServiceServicer_to_server(cluster, server)
        cluster.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield cluster
        server.stop(grace=None).wait()
        tokens.shutdown()


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal, and no token in a key ring of this machine."""
    monkeypatch.setattr(login, "_has_browser", lambda: False)
    monkeypatch.setattr(login, "_has_token", lambda platform: False)
    monkeypatch.delenv(VARIABLE, raising=False)


def judge(folder: Path, guarded: Guarded, mode: str, text: str | None = None) -> None:
    place = f"url = dns:///127.0.0.1:{guarded.port}\ninsecure = true"
    text = text or documented()[mode]
    text = re.sub(r"url = .*\ninsecure = false", place, text)
    assert place in text
    check_login(*read(folder, text))


def test_without_a_token_or_a_browser_it_says_what_to_do(tmp_path, guarded) -> None:
    with pytest.raises(UserError) as caught:
        judge(tmp_path, guarded, "Pkce")
    message = caught.value.message
    assert message.startswith(f"the Flyte cluster at 127.0.0.1:{guarded.port} wants a login, and ")
    assert "no token here" in message
    assert "DeviceFlow" in message
    assert "\n" not in message


@pytest.mark.parametrize("there", ["_has_browser", "_has_token"])
def test_with_one_of_them_flytekit_goes_on(tmp_path, guarded, monkeypatch, there: str) -> None:
    monkeypatch.setattr(login, there, lambda *_: True)
    judge(tmp_path, guarded, "Pkce")


def test_a_code_is_typed_elsewhere(tmp_path, guarded) -> None:
    judge(tmp_path, guarded, "DeviceFlow")


def test_a_variable_that_is_not_set_is_named(tmp_path, guarded) -> None:
    with pytest.raises(UserError, match=f"wants a login, and the variable {VARIABLE}, which"):
        judge(tmp_path, guarded, "ClientSecret")


def test_a_client_without_an_id_is_named(tmp_path, guarded, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)
    text = re.sub(r"client_id = .*\n", "", documented()["ClientSecret"])
    with pytest.raises(UserError, match=r"`client_id` under .credentials. in flyte.config is not"):
        judge(tmp_path, guarded, "ClientSecret", text)


def test_the_right_secret_logs_in(tmp_path, guarded, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)
    judge(tmp_path, guarded, "ClientSecret")
    assert len(guarded.forms) == 1


def test_a_wrong_one_is_refused_and_not_shown(tmp_path, guarded, monkeypatch, caplog) -> None:
    monkeypatch.setenv(VARIABLE, "wr0ng")
    with pytest.raises(UserError, match="refuses client `siqvl-ci`") as caught:
        judge(tmp_path, guarded, "ClientSecret")
    assert "wr0ng" not in caught.value.message + caplog.text


def test_a_cluster_that_wants_none_is_not_asked_for_one(tmp_path, guarded) -> None:
    guarded.guards = False
    for mode in documented():
        judge(tmp_path, guarded, mode)
    assert guarded.forms == []
