"""Where API keys are read from."""

from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.serving.server.api_keys import VARIABLE, ApiKeys
from siqvl.serving.server.refusals import Refused

ONE, OTHER = "0123456789abcdef", "another key of more than sixteen"


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert len(ApiKeys.read(None)) == 0
    monkeypatch.setenv(VARIABLE, f"{ONE}, {OTHER},")
    keys = ApiKeys.read(None)
    for key in (ONE, OTHER):
        keys.check(f"Bearer {key}")
        keys.check(f"bearer {key}")
    for wrong in (None, "", ONE, f"Basic {ONE}", f"Bearer {ONE}x", "Bearer ü"):
        with pytest.raises(Refused) as caught:
            keys.check(wrong)
        assert caught.value.status == 401


def test_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "never-read-beside-a-file")
    (tmp_path / "keys").write_text(f"# of the team\n{ONE}\n\n{OTHER}\n")
    keys = ApiKeys.read(tmp_path / "keys")
    assert len(keys) == 2
    keys.check(f"Bearer {OTHER}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("", "holds no API key"), ("# none\n", "holds no API key"), ("short\n", "fewer than 16")],
)
def test_files_without_a_good_key(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "keys").write_text(content)
    with pytest.raises(UserError, match=sentence) as caught:
        ApiKeys.read(tmp_path / "keys")
    assert "short\n" not in caught.value.message
    with pytest.raises(UserError, match="cannot be read"):
        ApiKeys.read(tmp_path / "nothing")


def test_a_key_is_kept_nowhere() -> None:
    assert ONE not in repr(vars(ApiKeys([ONE])))
