"""States in Flyte's checkpoint store: fetched whole or not at all, kept while a stage trains."""

import io
import os
import random
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace

import pytest
from flytekit.core.checkpointer import SyncCheckpoint
from flytekit.core.context_manager import FlyteContextManager

from siqvl.training.loop import stop_request
from siqvl.training.loop.stop_request import Stopped, ask, heeding, standing
from siqvl.training.states import damage, forget_older, last_good_state, publish, seal, staged_state
from tasks import preemption
from tasks.preemption import ARCHIVE, LEAVING, states_kept

KEY, OTHER_KEY = "0123456789ab", "ba9876543210"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "LOOKS_EVERY", 0.01)


@contextmanager
def attempt(store: SyncCheckpoint) -> Iterator[None]:
    """What flytekit sets up in a pod: an execution in the environment, a store in the context."""
    context = FlyteContextManager.current_context()
    state = context.execution_state or context.new_execution_state()
    parameters = state.user_space_params.builder()
    parameters.checkpoint = store
    state = state.with_params(user_space_params=parameters.build())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")
        with FlyteContextManager.with_context(context.with_execution_state(state)):
            yield


class Pods:
    """Attempts at one task: each on an empty disk, and with a store of its own to write to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    @property
    def output(self) -> Path:
        return self.folder / f"pod-{self.count}" / "checkpoints" / "vqa_sft"

    def kept(self) -> Path:
        """What this attempt has put into its store."""
        return self.folder / "store" / str(self.count) / ARCHIVE

    @contextmanager
    def next(self, store: Callable[..., SyncCheckpoint] = SyncCheckpoint) -> Iterator[Path]:
        before = self.folder / "store" / str(self.count)
        self.count += 1
        source = str(before) if self.count > 1 else None
        made = store(str(self.folder / "store" / str(self.count)), source)
        with attempt(made), states_kept(self.output):
            yield self.output


@pytest.fixture
def pods(tmp_path: Path) -> Pods:
    return Pods(tmp_path)


def work_dir(output: Path, key: str = KEY) -> Path:
    return output.with_name(f".{output.name}.training-{key}")


def save(output: Path, step: int, key: str = KEY) -> Path:
    """A state as the trainer writes one; its bytes are told by its step."""
    staged = staged_state(work_dir(output, key), step)
    staged.mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(random.Random(step).randbytes(30_000))
    (staged / "progress-0.json").write_text(f'{{"step": {step}}}')
    seal(staged)
    return publish(staged, work_dir(output, key))


def wait(found: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not found():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.005)


def steps(archive: Path) -> list[str]:
    """States in an archive."""
    if not archive.is_file():
        return []
    with tarfile.open(archive) as packed:
        return [Path(name).name for name in packed.getnames() if "checkpoint" in Path(name).name]


def kept_step(pods: Pods, step: int) -> bool:
    try:
        return steps(pods.kept()) == [f"checkpoint-{step}"]
    except tarfile.TarError:  # a copy is under way
        return False


def train_one(pods: Pods, step: int) -> None:
    """An attempt that saves one state, which is kept, and comes to no end."""
    with pods.next() as output:
        save(output, step)
        wait(lambda: kept_step(pods, step))


def beside(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir())


# Fetching


def test_the_next_attempt_finds_the_state_as_it_was(pods: Pods) -> None:
    train_one(pods, 7)
    before = {path.name: path.read_bytes() for path in work_dir(pods.output).glob("*/*")}
    with pods.next() as output:
        state = last_good_state(work_dir(output))
        assert state == work_dir(output) / "checkpoint-7"
        assert {path.name: path.read_bytes() for path in state.iterdir()} == before
    assert beside(output) == [work_dir(output).name]


def test_a_state_that_is_written_right_before_an_error_is_kept(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemption, "LOOKS_EVERY", 60)  # the attempt ends before it is looked for

    def lose(output: Path) -> None:
        save(output, 7)
        raise RuntimeError("the pod is lost")

    with pytest.raises(RuntimeError, match="lost"), pods.next() as output:
        lose(output)
    assert steps(pods.kept()) == ["checkpoint-7"]


def test_it_is_kept_for_the_attempt_after_that_too(pods: Pods) -> None:
    """Flyte hands on the store of the attempt just before, and that one may not get far."""
    train_one(pods, 7)
    for _ in range(2):
        first = pods.kept().read_bytes()
        with pods.next():
            assert pods.kept().read_bytes() == first  # at once, before anything is trained
    with pods.next() as output:
        assert last_good_state(work_dir(output)) == work_dir(output) / "checkpoint-7"


def test_of_an_attempt_that_kept_nothing_there_is_nothing(pods: Pods) -> None:
    with pods.next() as output:
        pass
    assert not pods.kept().parent.exists()
    with pods.next() as output:
        assert beside(output) == []  # not in a folder that a killed attempt would leave it in
        assert last_good_state(work_dir(output)) is None
    assert beside(output) == []


TORN = [0, 1, 100, 511, 512, 1024, 1537, 10_000, 31_000, -10_241, -10_240, -1]


@pytest.mark.parametrize("length", TORN)
def test_a_torn_archive_leaves_nothing_or_the_whole_state(pods: Pods, length: int) -> None:
    train_one(pods, 7)
    content = pods.kept().read_bytes()
    pods.kept().write_bytes(content[:length])
    with pods.next() as output:
        state = last_good_state(work_dir(output))
        left = [path for path in output.parent.iterdir() if not path.name.startswith(".states-")]
        assert left == ([state.parent] if state else [])
        if state is not None:  # what is missing is padding
            assert length < 0
            assert damage(state) is None
        else:
            # the same step, done again, is a new state
            save(output, 7)
            wait(lambda: kept_step(pods, 7))
    with pods.next() as output:
        assert last_good_state(work_dir(output)) == work_dir(output) / "checkpoint-7"


@pytest.mark.parametrize("place", [3, 600, 1600, 5_000, 30_000])
def test_a_flipped_bit_never_gives_another_state(pods: Pods, place: int) -> None:
    train_one(pods, 7)
    content = bytearray(pods.kept().read_bytes())
    content[place] ^= 1
    pods.kept().write_bytes(content)
    with pods.next() as output:
        state = last_good_state(work_dir(output))
        if state is not None:
            model = (state / "model.safetensors").read_bytes()
            assert model == random.Random(7).randbytes(30_000)


def test_an_archive_that_reaches_elsewhere_is_not_unpacked(pods: Pods, caplog) -> None:
    train_one(pods, 7)
    with tarfile.open(pods.kept(), "w") as packed:
        for name in ("../escaped", "/tmp/escaped-siqvl"):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            packed.addfile(entry, io.BytesIO(b"oops"))
    with pods.next() as output:
        assert last_good_state(work_dir(output)) is None
    assert beside(output) == []
    assert not Path("/tmp/escaped-siqvl").exists()
    assert "damaged" in caplog.text


def test_a_state_of_other_data_is_not_continued_from_and_not_in_the_way(pods: Pods) -> None:
    with pods.next() as output:
        save(output, 900, OTHER_KEY)
        wait(lambda: kept_step(pods, 900))
    with pods.next() as output:
        assert last_good_state(work_dir(output)) is None
        save(output, 2)  # far fewer steps, and yet the newest
        wait(lambda: kept_step(pods, 2))
    with pods.next() as output:
        assert last_good_state(work_dir(output)) == work_dir(output) / "checkpoint-2"


def test_a_state_of_another_stage_is_not_unpacked(pods: Pods) -> None:
    train_one(pods, 7)
    with tarfile.open(pods.kept(), "w") as packed:
        packed.add(work_dir(pods.output), arcname=f".cot_sft.training-{KEY}")
    with pods.next() as output:
        assert last_good_state(work_dir(output)) is None
    assert beside(output) == []


def test_a_state_that_is_still_there_stays(pods: Pods) -> None:
    """Of several machines one restores into the folder that all of them share."""
    train_one(pods, 7)
    shutil.copytree(pods.output.parent, pods.folder / "pod-2" / "checkpoints")
    there = work_dir(pods.folder / "pod-2" / "checkpoints" / "vqa_sft") / "checkpoint-7"
    number = there.stat().st_ino
    with pods.next():
        pass
    assert there.stat().st_ino == number
    assert damage(there) is None


class Away(SyncCheckpoint):
    """A store that fails some times, then works."""

    fails = 0

    def restore(self, path=None):
        if self.fails > 0:
            self.fails -= 1
            (Path(path) / ARCHIVE).write_bytes(b"half")
            raise ConnectionError("the store is away")
        return super().restore(path)

    def save(self, cp) -> None:
        if self.fails > 0:
            self.fails -= 1
            raise ConnectionError("the store is away")
        super().save(cp)


def away(times: int) -> Callable[..., SyncCheckpoint]:
    def make(*arguments: str) -> SyncCheckpoint:
        store = Away(*arguments)
        store.fails = times
        return store

    return make


def test_a_store_that_comes_back_is_asked_again(pods: Pods, monkeypatch) -> None:
    waited: list[float] = []
    train_one(pods, 7)
    monkeypatch.setattr(
        preemption, "time", SimpleNamespace(sleep=waited.append, monotonic=time.monotonic)
    )
    with pods.next(away(3)) as output:  # the mark of where to look is not left
        state = last_good_state(work_dir(output))
    assert state == work_dir(output) / "checkpoint-7"
    assert waited == [1, 2]


def test_without_the_store_a_stage_begins_anew(pods: Pods, monkeypatch, caplog) -> None:
    train_one(pods, 7)
    monkeypatch.setattr(
        preemption, "time", SimpleNamespace(sleep=lambda seconds: None, monotonic=time.monotonic)
    )
    with pods.next(away(1 + preemption.TRIES)) as output:
        assert last_good_state(work_dir(output)) is None
    assert caplog.text.count("the store is away") == 1 + preemption.TRIES
    assert beside(output) == []


# Keeping


def test_the_newest_state_is_kept_and_replaces_the_one_before(pods: Pods) -> None:
    with pods.next() as output:
        for step in (2, 10, 11):
            newest = save(output, step)
            forget_older(newest, keep=2)
            wait(lambda step=step: kept_step(pods, step))
    assert [path.name for path in pods.kept().parent.iterdir()] == [ARCHIVE]


def test_a_state_is_kept_once(pods: Pods, monkeypatch) -> None:
    saved: list[Path] = []
    monkeypatch.setattr(SyncCheckpoint, "save", lambda self, path: saved.append(path))
    with pods.next() as output:
        save(output, 1)
        wait(lambda: saved)
        time.sleep(0.1)
    assert len(saved) == 1


def test_a_state_that_goes_while_it_is_packed_is_left_out(pods: Pods, monkeypatch) -> None:
    real, gone = tarfile.TarFile.add, []

    def add(self, name, *arguments, **options):
        if str(name).endswith("checkpoint-1/progress-0.json"):
            shutil.rmtree(Path(name).parent)
            gone.append(name)
        return real(self, name, *arguments, **options)

    monkeypatch.setattr(tarfile.TarFile, "add", add)
    with pods.next() as output:
        save(output, 1)
        wait(lambda: gone)
        assert not pods.kept().exists()
        save(output, 2)
        wait(lambda: kept_step(pods, 2))


def test_a_state_that_could_not_be_kept_is_tried_again(pods: Pods, caplog) -> None:
    with pods.next(away(3)) as output:
        save(output, 1)
        wait(lambda: kept_step(pods, 1))
    assert caplog.text.count("a state could not be kept: the store is away") == 3


def test_training_goes_on_without_the_store(pods: Pods) -> None:
    with pods.next(away(1_000_000)) as output:
        save(output, 1)
        time.sleep(0.05)
    assert beside(output) == [work_dir(output).name]


def test_half_written_states_are_not_kept(pods: Pods) -> None:
    with pods.next() as output:
        staged = staged_state(work_dir(output), 3)
        staged.mkdir(parents=True)
        (staged / "model.safetensors").write_bytes(b"half")
        time.sleep(0.05)
        assert not pods.kept().exists()


def test_a_stage_that_ends_takes_its_states_along(pods: Pods) -> None:
    """The keeper looks while the folder goes; it must neither fail nor wait."""
    for _ in range(5):
        with pods.next() as output:
            for step in range(1, 6):
                save(output, step)
            shutil.rmtree(work_dir(output))
        assert beside(output) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "states-kept"]


def test_a_failure_inside_comes_out_and_ends_the_thread(pods: Pods) -> None:
    with pytest.raises(ZeroDivisionError), pods.next() as output:
        raise ZeroDivisionError
    assert beside(output) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "states-kept"]


def test_on_a_laptop_nothing_is_done(tmp_path: Path, monkeypatch) -> None:
    """Though flytekit has a store there as well, in a new folder below /tmp for every task."""
    monkeypatch.delenv("FLYTE_INTERNAL_EXECUTION_ID", raising=False)
    output = tmp_path / "checkpoints" / "vqa_sft"
    context = FlyteContextManager.current_context()
    state = context.execution_state or context.new_execution_state()
    parameters = state.user_space_params.with_task_sandbox().build()
    local = state.with_params(user_space_params=parameters)
    with FlyteContextManager.with_context(context.with_execution_state(local)), states_kept(output):
        assert not output.parent.exists()
        save(output, 1)
        time.sleep(0.05)
    store = Path(parameters.checkpoint._checkpoint_dest)
    assert list(store.iterdir()) == []


def test_a_platform_without_a_store_is_no_obstacle(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")
    with states_kept(tmp_path / "checkpoints" / "vqa_sft"):
        assert os.listdir(tmp_path) == []


# Two attempts at once


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], object]]:
    """What tells an attempt to end."""
    yield lambda: ask(signal.SIGTERM, pytest.fail)
    stop_request._request = None


def test_the_next_attempt_waits_for_the_state_of_one_that_is_ending(
    pods: Pods, told, caplog, monkeypatch
) -> None:
    """It begins while the one before is in its grace, as Flyte starts it."""
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")  # of two attempts, until both are over
    ending, ended = threading.Event(), threading.Event()

    def first() -> None:
        with suppress(Stopped), pods.next() as output, heeding(60.0):
            told()
            wait((pods.kept().parent / LEAVING).exists)
            ending.set()
            time.sleep(0.3)
            save(output, 7)
        ended.set()

    thread = threading.Thread(target=copy_context().run, args=(first,))
    thread.start()
    assert ending.wait(10)
    with pods.next() as output:
        assert ended.is_set()
        assert last_good_state(work_dir(output)) == work_dir(output) / "checkpoint-7"
    thread.join()
    assert caplog.text.count("the attempt before is saving its state") == 1
    assert standing.kept == 7


def test_one_that_never_says_that_it_has_ended_is_waited_for_no_longer_than_its_grace(
    pods: Pods, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(preemption, "SLACK", 0.1)
    train_one(pods, 7)
    (pods.kept().parent / LEAVING).write_text('{"seconds": 0.2}')
    begin = time.monotonic()
    with pods.next() as output:
        assert last_good_state(work_dir(output)) == work_dir(output) / "checkpoint-7"
    assert 0.3 <= time.monotonic() - begin < 10
    assert "the attempt before has not said that it has ended" in caplog.text


def test_a_late_state_of_an_older_attempt_is_none_of_the_newer_ones(pods: Pods) -> None:
    """Each has a store of its own, and goes by its own."""
    train_one(pods, 7)
    older = pods.kept()
    with pods.next() as output:
        save(output, 9)
        wait(lambda: kept_step(pods, 9))
        shutil.copy(older, older.with_suffix(".late"))
        (older.with_suffix(".late")).replace(older)
    with pods.next() as output:
        assert last_good_state(work_dir(output)) == work_dir(output) / "checkpoint-9"


def test_a_state_is_found_behind_attempts_that_came_to_keep_nothing(
    pods: Pods, monkeypatch
) -> None:
    """They were told to end, or killed, before they had taken it over."""
    train_one(pods, 7)
    for _ in range(3):
        with monkeypatch.context() as patch, suppress(ZeroDivisionError):
            patch.setattr(preemption, "_wait_for_its_end", lambda store: 1 / 0)
            with pods.next():
                pass
        assert not pods.kept().exists()
    with pods.next() as output:
        assert last_good_state(work_dir(output)) == work_dir(output) / "checkpoint-7"
