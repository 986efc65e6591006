"""Which share of a cache each training process computes, by the folders that machines see."""

import os
from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from siqvl.data.features import shares
from siqvl.data.features.shares import complete, own_shares, shares_of
from siqvl.recipe import Distributed
from siqvl.training.loop.launch import launch


@pytest.mark.parametrize(
    ("groups", "world"),
    [
        ([[0, 1, 2, 3]], 4),  # one folder
        ([[0, 1], [2, 3]], 4),  # two machines, each with its own
        ([[0, 2], [1, 3]], 4),  # ranks as they happen to be given
        ([[0, 1, 2], [3]], 4),
        ([[0], [1]], 2),
    ],
)
def test_those_that_share_a_folder_fill_it_once(groups: list[list[int]], world: int) -> None:
    for group in groups:
        computed = [share for rank in group for share in shares_of(rank, group, world)]
        assert sorted(computed) == list(range(world))
    one = [shares_of(rank, list(range(world)), world) for rank in range(world)]
    assert one == [[rank] for rank in range(world)]


def test_what_is_not_seen_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network volume, which shows a folder as it was a while ago."""
    monkeypatch.setattr(shares, "_PAUSE", 0.001)
    looks: list[list[str]] = []

    def opened(before: dict[str, int]) -> dict[str, int]:
        looks.append(sorted(before))
        return dict.fromkeys("abc"[: len(looks)], 0)

    assert sorted(complete({}, opened, {"a", "c"}, seconds=60)) == ["a", "b", "c"]
    assert looks == [[], ["a"], ["a", "b"]]  # what was good before is not judged again
    looks.clear()
    assert complete({}, lambda before: {"a": 0}, {"a", "c"}, seconds=0.01) == {"a": 0}
    assert complete({}, lambda before: {"a": 0}, {"a", "c"}, seconds=0.0) == {"a": 0}


def test_a_process_alone_leaves_no_mark(tmp_path: Path) -> None:
    assert own_shares(tmp_path / "none", PartialState(cpu=True)) == [0]
    assert not (tmp_path / "none").exists()


def find_out(folder: str) -> None:
    """A training process: its shares of a folder that all see, and of one that is its own."""
    torch.distributed.init_process_group("gloo")
    rank, place = os.environ["RANK"], Path(folder)
    processes = PartialState(cpu=True)
    found = [own_shares(place / name, processes) for name in ("shared", f"own-{rank}")]
    (place / f"found-{rank}").write_text(str(found))
    torch.distributed.destroy_process_group()


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
def test_processes_find_out_whether_they_see_one_folder(tmp_path: Path) -> None:
    launch(find_out, str(tmp_path), Distributed(enabled=True, processes=2))
    found = [(tmp_path / f"found-{rank}").read_text() for rank in (0, 1)]
    assert found == ["[[0], [0, 1]]", "[[1], [0, 1]]"]
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]
