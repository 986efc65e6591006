"""Addresses of stores that are none, and files that are no store: one sentence, and at once."""

import socket
import time
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.recipe.address import check_address
from siqvl.tracking.runs import find_runs, start_run


def used(recipe: Recipe, uri: str) -> str:
    """What is said when a run begins, within the ten seconds that nobody minds."""
    content = recipe.model_dump(mode="json")
    content["tracking"] |= {"uri": uri, "patience_seconds": 2.0}
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        start_run(Recipe.model_validate(content), "never")
    assert time.monotonic() - begin < 10
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_file_that_is_no_database_is_named(recipe: Recipe, tmp_path: Path) -> None:
    """MLflow would try for 100 seconds, and end with a traceback."""
    text = tmp_path / "text.db"
    text.write_text("no database, but longer than the mark of one\n")
    assert f"{text} cannot be used: it is no sqlite database" in used(recipe, f"sqlite:///{text}")
    (tmp_path / "folder.db").mkdir()
    assert "Is a directory" in used(recipe, f"sqlite:///{tmp_path}/folder.db")
    assert "Not a directory" in used(recipe, f"sqlite:///{text}/below.db")
    content = recipe.model_dump(mode="json")
    content["tracking"]["uri"] = f"sqlite:///{text}"
    with pytest.raises(UserError, match="it is no sqlite database"):
        find_runs(Recipe.model_validate(content), {})


def test_a_database_that_is_damaged_further_on_is_named(recipe: Recipe, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    said = used(recipe, f"sqlite:///{damaged}")
    assert "cannot be used: (sqlite3.DatabaseError) file is not a database" in said


@pytest.mark.parametrize(
    "uri",
    [
        "http://",
        "https:///path",
        "http://[bad",
        "http://host:99999",
        "http://host:many",
        "sqlite://file.db",
        "sqlite:file.db",
        "sqlite:///a\0b.db",
    ],
)
def test_what_is_no_address_is_refused(recipe: Recipe, uri: str) -> None:
    assert "the address of the MLflow store is none" in used(recipe, uri)


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "refused"])
def test_a_database_that_nobody_reaches_is_named(recipe: Recipe, silent: bool) -> None:
    """MLflow would try for 100 seconds, or wait for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:  # connections are taken, and nothing is ever said
            listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}/siqvl"
        said = used(recipe, f"postgresql://siqvl@{address}")
    why = "it gave no answer within 2 seconds" if silent else "Connection refused"
    assert said.startswith(f"MLflow store postgresql://siqvl@{address} cannot be used: ")
    assert why in said


def test_a_scheme_or_driver_that_nobody_has_is_one_sentence(recipe: Recipe) -> None:
    assert "unsupported URI 'nonsense://x'" in used(recipe, "nonsense://x")


@pytest.mark.parametrize(
    "uri",
    ["https://host:5000/path", "postgresql://user@host/db", "databricks", "sqlite:///new.db?x=1"],
)
def test_others_are_left_to_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri) -> None:
    monkeypatch.chdir(tmp_path)
    check_address(uri)
    assert not list(tmp_path.iterdir())


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    check_address(f"sqlite:///{tmp_path}/empty.db")
