"""What the pods of a stage on several machines make of one another."""

import json
from pathlib import Path

import pytest
from flytekit.exceptions.user import FlyteRecoverableException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from siqvl.errors import UserError
from siqvl.recipe import Distributed
from tasks import machines

TWO = Distributed(enabled=True, nodes=2, shared_dir="/shared")
ONE = Distributed(enabled=True, processes=2)
#: As torch 2.13 and gloo say it, and torch of NCCL.
GLOO = (
    "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] "
    "Connection closed by peer [127.0.0.1]:4321"
)
NCCL = "DistBackendError: NCCL error in: NCCLUtils.cpp:94, remote process exited"
WRONG = "UserError: the data is not there"


def failed(folder: Path, *, said: str = "", exitcode: int = 1) -> ChildFailedError:
    """The failure of process 1, as torch elastic tells it."""
    file = folder / "error.json"
    if said:
        extra = {"py_callstack": "", "timestamp": "1"}
        file.write_text(json.dumps({"message": {"message": said, "extraInfo": extra}}))
    failure = ProcessFailure(local_rank=0, pid=7, exitcode=exitcode, error_file=str(file))
    return ChildFailedError("train", {1: failure})


@pytest.fixture
def in_a_pod(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """On a cluster; how long was waited."""
    waited: list[float] = []
    monkeypatch.setattr(machines, "on_cluster", lambda: True)
    monkeypatch.setattr(machines.time, "sleep", waited.append)
    return waited


@pytest.mark.parametrize("said", [GLOO, NCCL])
def test_one_that_lost_another_lets_that_speak_first(
    tmp_path: Path, in_a_pod: list[float], said: str
) -> None:
    found = machines.reason(failed(tmp_path, said=said), TWO)
    assert isinstance(found, FlyteRecoverableException)
    assert "training process 1 failed" in str(found)
    assert in_a_pod == [machines.FIRST_SAID]
    in_a_pod.clear()
    machines.reason(failed(tmp_path, said=said), ONE)  # torch itself knows which was the first
    assert in_a_pod == []


def test_one_that_was_killed_is_tried_again(tmp_path: Path, in_a_pod: list[float]) -> None:
    found = machines.reason(failed(tmp_path, exitcode=-9), TWO)
    assert isinstance(found, FlyteRecoverableException)
    assert "training process 1 failed: Signal 9 (SIGKILL)" in str(found)
    assert in_a_pod == []


def test_what_a_user_can_put_right_is_final(tmp_path: Path, in_a_pod: list[float]) -> None:
    found = machines.reason(failed(tmp_path, said=WRONG), TWO)
    assert type(found) is UserError
    assert str(found) == "training process 1 failed: UserError: the data is not there"
    assert in_a_pod == []


@pytest.mark.parametrize("said", [GLOO, ""])
def test_here_nothing_is_tried_again(tmp_path: Path, said: str) -> None:
    assert type(machines.reason(failed(tmp_path, said=said, exitcode=-9), ONE)) is UserError


@pytest.mark.parametrize(
    ("distributed", "pods", "cluster", "words"),
    [
        (TWO, None, False, "distributed.nodes is 2, but this is one machine"),
        (TWO, None, True, r"distributed.nodes is 2, but this task runs in 1 pod\(s\)"),
        (ONE, "2:2", True, r"distributed.nodes is 1, but this task runs in 2 pod\(s\)"),
        (TWO, "3:3", True, r"distributed.nodes is 2, but this task runs in 3 pod\(s\)"),
    ],
)
def test_other_machines_than_the_recipe_says_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    distributed: Distributed,
    pods: str | None,
    cluster: bool,
    words: str,
) -> None:
    monkeypatch.delenv("PET_NNODES", raising=False)
    monkeypatch.setattr(machines, "on_cluster", lambda: cluster)
    if pods:
        monkeypatch.setenv("PET_NNODES", pods)
    with pytest.raises(UserError, match=words):
        machines.check_machines(distributed)


def test_as_many_as_the_recipe_says_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PET_NNODES", raising=False)
    machines.check_machines(ONE)
    monkeypatch.setenv("PET_NNODES", "2:2")
    machines.check_machines(TWO)
