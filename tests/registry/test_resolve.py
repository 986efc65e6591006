"""What a user may name a checkpoint by; the hub is a server here that answers as the hub does."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from siqvl.checkpoint import verify_checkpoint
from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.registry.resolve import resolve_checkpoint
from siqvl.registry.versions import Registry
from siqvl.tracking.runs import start_run
from tests.made_checkpoint import hash_of, made_checkpoint, signed

COMMIT = "a" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of `owner/name` on a hub; what was asked for is in `asked.txt` beside it."""
    import huggingface_hub
    from huggingface_hub import constants

    repository = tmp_path / "repository"

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            with open(tmp_path / "asked.txt", "a") as asked:
                asked.write(f"{self.command} {path}\n")
            names = sorted(one.name for one in repository.iterdir()) if repository.exists() else []
            if path.startswith("/api/models/owner/name/revision/"):
                siblings = [{"rfilename": name} for name in names]
                self._send(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}))
            elif path.startswith("/api/models/owner/name/tree/"):
                sizes = [(name, (repository / name).stat().st_size) for name in names]
                tree = [
                    {"type": "file", "path": name, "size": size, "oid": name}
                    for name, size in sizes
                ]
                self._send(json.dumps(tree))
            elif path.startswith("/owner/name/resolve/") and path.rpartition("/")[2] in names:
                self._send((repository / path.rpartition("/")[2]).read_bytes())
            else:
                kind = "EntryNotFound" if path.startswith("/owner/name/") else "RepoNotFound"
                self._send("", 404, kind)

        def _send(self, content: str | bytes, status: int = 200, error: str = "") -> None:
            data = content.encode() if isinstance(content, str) else content
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            if error:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr(huggingface_hub._snapshot_download, "HfApi", _api_of(address))
    yield repository
    server.shutdown()
    server.server_close()


def _api_of(address: str) -> type:
    from huggingface_hub import HfApi

    class Api(HfApi):
        def __init__(self, **values: object) -> None:
            super().__init__(**{**values, "endpoint": address})  # type: ignore[arg-type]

    return Api


def test_a_folder_is_itself(recipe: Recipe, tmp_path: Path) -> None:
    checkpoint = made_checkpoint(tmp_path / "one", recipe, "a")
    assert resolve_checkpoint(str(checkpoint)) == checkpoint


def test_home_is_filled_in(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_checkpoint(tmp_path / "one", recipe, "a")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_checkpoint("~/one") == tmp_path / "one"


def test_the_folder_of_an_mlflow_model_holds_it(recipe: Recipe, tmp_path: Path) -> None:
    inside = made_checkpoint(tmp_path / "model" / "artifacts" / "checkpoint", recipe, "a")
    assert resolve_checkpoint(str(tmp_path / "model")) == inside


def test_what_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for reference, said in {
        str(tmp_path / "empty"): "it has no siqvl.json",
        str(tmp_path / "file"): "is a file; name the checkpoint's folder",
        str(tmp_path / "none"): "there is no checkpoint",
        "": "there is no checkpoint",
    }.items():
        with pytest.raises(UserError, match=said):
            resolve_checkpoint(reference)


def test_a_registered_model_is_found_by_alias_and_by_number(recipe: Recipe, tmp_path: Path) -> None:
    log = start_run(recipe, "stage")
    registry = Registry(log.uri, "resolved")
    for name in "ab":
        registry.register(log, made_checkpoint(tmp_path / name, recipe, name))
    registry.give("champion", 1)
    for reference, name in {
        "models:/resolved@champion": "a",
        "models:/resolved/1": "a",
        "models:/resolved/2": "b",
    }.items():
        found = resolve_checkpoint(reference, tracking_uri=log.uri)
        assert verify_checkpoint(found).hash == hash_of(name)
        assert found.parts[-2:] == ("artifacts", "checkpoint")  # where it lies, not a copy
    for wrong in ("models:/resolved@nobody", "models:/resolved/7", "models:/other/1", "models:/x"):
        with pytest.raises(UserError, match=f"{wrong} is no registered model"):
            resolve_checkpoint(wrong, tracking_uri=log.uri)


def test_a_run_gives_its_model_or_its_artifact(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(recipe.tracking.uri))
    log = start_run(recipe, "with a model")
    Registry(log.uri, "of-a-run").register(log, made_checkpoint(tmp_path / "a", recipe, "a"))
    for reference in (f"runs:/{log.run_id}", f"runs:/{log.run_id}/dpo"):
        assert verify_checkpoint(resolve_checkpoint(reference)).hash == hash_of("a")
    other = start_run(recipe, "with an artifact")
    other.artifact(made_checkpoint(tmp_path / "b", recipe, "b"), "checkpoint")
    assert other.flush()
    for reference in (f"runs:/{other.run_id}", f"runs:/{other.run_id}/checkpoint"):
        assert verify_checkpoint(resolve_checkpoint(reference)).hash == hash_of("b")
    with pytest.raises(UserError, match="has no checkpoint"):
        resolve_checkpoint(f"runs:/{other.run_id}/elsewhere")
    with pytest.raises(UserError, match="is nothing of a run"):
        resolve_checkpoint("runs:/" + "0" * 32)


def test_no_store_is_made_by_looking_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"there is no MLflow store sqlite:///mlflow\.db"):
        resolve_checkpoint("models:/siqvl-tiny@champion")
    assert not os.listdir(tmp_path)


def test_what_is_in_a_store_elsewhere_is_brought_once(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Artifacts that a server passes on; they are copied again when the copy is damaged."""
    from mlflow.store.artifact import artifact_repository_registry as artifacts
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    made_checkpoint(tmp_path / "bucket" / "model" / "artifacts" / "checkpoint", recipe, "a")
    brought: list[str] = []

    class Bucket(LocalArtifactRepository):
        def __init__(self, uri: str, **values: str | None) -> None:
            super().__init__(uri.replace("s3://", f"{tmp_path}/"))

        def download_artifacts(self, path: str, dst_path: str | None = None) -> str:
            brought.append(path)
            import shutil

            found = Path(self.artifact_dir, path)
            if not found.exists():
                raise OSError(f"no such file {path}")
            if found.is_dir():
                return str(shutil.copytree(found, dst_path or "", dirs_exist_ok=True))
            return str(shutil.copy(found, dst_path or ""))

    monkeypatch.setitem(artifacts._artifact_repository_registry._registry, "s3", Bucket)
    monkeypatch.setenv("SIQVL_CACHE", str(tmp_path / "cache"))
    log = start_run(recipe, "stage")
    with_bucket = Registry(log.uri, "in-a-bucket")
    with with_bucket._client() as store:
        store.create_registered_model("in-a-bucket")
        store.create_model_version("in-a-bucket", "s3://bucket/model")
        store.create_model_version("in-a-bucket", "s3://bucket/nothing")
    found = [resolve_checkpoint("models:/in-a-bucket/1", tracking_uri=log.uri) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].is_relative_to(tmp_path / "cache")
    assert verify_checkpoint(found[0]).hash == hash_of("a")
    assert brought == ["siqvl.json", "", "siqvl.json"]
    (found[0] / "model.safetensors").write_bytes(b"cut")
    again = resolve_checkpoint("models:/in-a-bucket/1", tracking_uri=log.uri)
    assert verify_checkpoint(again).hash == hash_of("a")
    with pytest.raises(UserError, match=r"in-a-bucket/2 has no checkpoint .*no such file"):
        resolve_checkpoint("models:/in-a-bucket/2", tracking_uri=log.uri)


def test_the_hub_gives_what_the_card_names_and_no_pickle(
    recipe: Recipe, hub: Path, tmp_path: Path
) -> None:
    made_checkpoint(hub, recipe, "a")
    (hub / "config.json").write_text("{}")
    signed(hub)
    for name in ("pytorch_model.bin", "README.md", "strange.py"):
        (hub / name).write_text("not of the card")
    found = resolve_checkpoint("owner/name")
    assert sorted(one.name for one in found.iterdir()) == [
        "config.json",
        "model.safetensors",
        "siqvl.json",
    ]
    verify_checkpoint(found)
    assert ".bin" not in (tmp_path / "asked.txt").read_text()
    assert resolve_checkpoint("owner/name@main") == found


def test_a_pickle_that_a_card_names_is_not_brought(recipe: Recipe, hub: Path) -> None:
    made_checkpoint(hub, recipe, "a")
    (hub / "training_args.bin").write_bytes(b"pickle")
    signed(hub)
    found = resolve_checkpoint("owner/name")
    assert not (found / "training_args.bin").exists()
    with pytest.raises(UserError, match=r"training_args\.bin is missing"):
        verify_checkpoint(found)


def test_what_the_hub_has_not_is_one_sentence(recipe: Recipe, hub: Path) -> None:
    hub.mkdir()
    with pytest.raises(UserError, match=r"owner/name on the hub is no SiQ-VL checkpoint"):
        resolve_checkpoint("owner/name")
    with pytest.raises(UserError, match=r"other/name is no folder here, and the hub"):
        resolve_checkpoint("other/name")


def test_without_a_network_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"owner/name is no folder here, and the hub cannot"):
        resolve_checkpoint("owner/name")
