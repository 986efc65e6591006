"""A folder of results that takes nothing: said before any work, in one sentence."""

import errno
import os
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.files import check_writable
from tasks.tracked import check_pod
from tests.small_recipe import small_recipe


def test_a_folder_that_can_be_made_is_left_to_whoever_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "new" / "folder", Path("new"), Path("")):
        check_writable(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()
    with pytest.raises(UserError) as caught:
        check_pod(small_recipe(tmp_path))
    said = caught.value.message
    assert said.startswith(f"nothing can be written to {tmp_path}/outputs (")
    assert said.endswith("or set `output_dir` in the recipe to another folder")
    with pytest.raises(UserError, match="File name too long"):
        check_writable(tmp_path / ("x" * 300))
    with pytest.raises(UserError, match=r"Read-only|Permission|No such file"):
        check_writable(Path("/proc/outputs"))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device\); free some space there, or"):
        check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
