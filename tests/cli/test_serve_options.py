"""Options of `siqvl serve` are the settings of a server, with their words and defaults."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from click.testing import CliRunner

from siqvl.cli.main import main
from siqvl.cli.serve import serve
from siqvl.serving.server.server_settings import ServerSettings

DOCS = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def test_every_setting_is_an_option() -> None:
    options = {one.name: one for one in serve.params}
    assert {*ServerSettings.model_fields} <= {*options}
    for name, field in ServerSettings.model_fields.items():
        assert options[name].help == field.description
    context = serve.make_context("serve", ["nothing"])
    given = {name: context.params[name] for name in ServerSettings.model_fields}
    assert ServerSettings(**given) == ServerSettings()


def test_options_that_the_docs_name_are_there() -> None:
    known = {name for one in serve.params for name in one.opts}
    assert {*re.findall(r"`(--[a-z-]+)", DOCS)} <= known


def test_an_address_that_cannot_be_had_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "siqvl.json").write_text("{}")  # no checkpoint, which would be said otherwise
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, why in (
            (["--port", port], f"nothing can listen at 127.0.0.1:{port} (Address already in use)"),
            (["--host", "192.0.2.1", "--open"], "nothing can listen at 192.0.2.1:8000 (Cannot "),
            (["--host", "no.host.invalid", "--open"], "nothing can listen at no.host.invalid:8000"),
        ):
            done = CliRunner().invoke(main, ["serve", str(tmp_path), *words])
            assert done.exit_code == 1
            assert why in done.stderr
            assert "give another `--host` or `--port`" in done.stderr


def test_what_is_wrong_is_one_sentence() -> None:
    for words, sentence in (
        (["--places", "0"], "options of `siqvl serve`: `places`: Input should be greater than 0"),
        (["--temperature", "nan"], "`temperature`: Input should be a finite number"),
        (["--api-keys-file", "/no/such/file"], "the file of API keys /no/such/file cannot be read"),
    ):
        done = CliRunner().invoke(main, ["serve", "nothing", *words])
        assert done.exit_code == 1
        assert sentence in done.stderr
    done = CliRunner().invoke(main, ["serve", "nothing"], env={"SIQVL_API_KEYS": "short"})
    assert "fewer than 16 characters" in done.stderr
    assert "short\n" not in done.stderr
