"""A published folder on a hub: huggingface_hub's own client against a server that answers so."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from siqvl.checkpoint import verify_checkpoint
from siqvl.cli.main import main
from siqvl.recipe import Stage
from siqvl.registry.resolve import resolve_checkpoint
from tests.publish.conftest import Run
from tests.publish.stand_in_hub import TOKEN, StandInHub, stand_in_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """A hub that this process is logged in to."""
    import huggingface_hub
    from huggingface_hub import constants

    with stand_in_hub() as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        # what the hub stores large files with is no part of this; LFS is the protocol without it
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        huggingface_hub.close_session()
        yield server
    huggingface_hub.close_session()


def publish(run: Run, *options: str, to: str = "me/tiny") -> Result:
    command = ["publish", str(run.checkpoint()), "--to", to, "--skip-load", *options]
    return CliRunner().invoke(main, command)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no folder `me` and no mlflow.db
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_all_files_arrive_in_one_commit(hub: StandInHub, run: Run) -> None:
    done = publish(run, "--private", "--message", "First try")
    assert done.exit_code == 0, done.output
    assert hub.commits == ["First try"]
    assert hub.visibility == "private"
    files = hub.branches["main"]
    weights = (run.checkpoint() / "model.safetensors").read_bytes()
    assert files["model.safetensors"] == weights
    assert list(hub.large) == [hashlib.sha256(weights).hexdigest()]
    own = {path.name for path in run.checkpoint().iterdir()}
    assert files.keys() == own | {"README.md", "scores.json", ".gitattributes"}
    assert b'from_pretrained("me/tiny", trust_remote_code=True)' in files["README.md"]
    assert done.stdout.startswith("to me/tiny on the hub\n")
    assert re.search(rf"{hub.address}/me/tiny/commit/[0-9a-f]{{40}}$", done.stdout.strip())


def test_the_token_goes_to_the_hub_alone(hub: StandInHub, run: Run) -> None:
    done = publish(run)
    assert done.exit_code == 0, done.output
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.output
    assert not any(TOKEN.encode() in content for content in hub.branches["main"].values())


def test_a_branch_is_made_and_what_was_there_before_goes(hub: StandInHub, run: Run) -> None:
    hub.branches["main"] = {"old.bin": b"old", ".gitattributes": b""}
    done = publish(run, "--branch", "stage/2")
    assert done.exit_code == 0, done.output
    assert hub.branches["main"].keys() == {"old.bin", ".gitattributes"}
    (branch,) = hub.branches.keys() - {"main"}
    assert "old.bin" not in hub.branches[branch]
    assert "config.json" in hub.branches[branch]
    assert hub.commits == [f"Checkpoint {run.cards[Stage.VQA_SFT].hash[:12]} after vqa_sft"]


def test_a_dry_run_asks_nobody(hub: StandInHub, run: Run, tmp_path: Path) -> None:
    done = publish(run, "--dry-run")
    assert done.exit_code == 0, done.output
    assert (hub.branches, hub.tokens) == ({}, set())
    assert list(tmp_path.iterdir()) == []
    assert "to me/tiny on the hub (nothing is written)" in done.stdout
    assert "| vqa | 2,000 | **68.7 %** |" in done.stdout
    assert re.search(r"^ +[\d,]+  model\.safetensors$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_write_there_is_told_what_to_do(hub: StandInHub, run: Run, status: int) -> None:
    hub.status = status
    done = publish(run)
    assert done.exit_code == 1
    assert "log in with `hf auth login`" in done.stderr
    assert TOKEN not in done.output
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_does_not_arrive_is_named(hub: StandInHub, run: Run) -> None:
    hub.loses = "processing.py"
    done = publish(run)
    assert done.exit_code == 1
    assert "me/tiny is not what was uploaded: processing.py is missing" in done.stderr


def test_a_hub_that_is_away_is_one_line(
    hub: StandInHub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = publish(run)
    assert done.exit_code == 1
    assert "HF_HUB_OFFLINE is set: nothing can be uploaded" in done.stderr


def test_what_was_published_is_a_checkpoint_by_its_hub_id(
    hub: StandInHub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `siqvl chat me/tiny` finds it: the same model, to be passed on."""
    import huggingface_hub
    from huggingface_hub import HfApi, constants

    assert publish(run).exit_code == 0
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        huggingface_hub._snapshot_download,
        "HfApi",
        lambda **values: HfApi(**{**values, "endpoint": hub.address}),
    )
    folder = resolve_checkpoint("me/tiny")
    assert verify_checkpoint(folder).hash == run.cards[Stage.VQA_SFT].hash
    assert folder.is_relative_to(tmp_path / "cache")
    done = CliRunner().invoke(main, ["publish", "me/tiny", "--to", "./again", "--skip-load"])
    assert done.exit_code == 0, done.output
    weights = (run.checkpoint() / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == weights
    assert not (tmp_path / "again" / "model.safetensors").is_symlink()
