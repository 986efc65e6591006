"""The newest state of all attempts is handed over, whoever lives, dies or is killed meanwhile."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing import Pipe, get_context
from pathlib import Path

import pytest

from siqvl import locks
from siqvl.training import places, states
from siqvl.training.places import ATTEMPT, LOCK, UNTOUCHED, all_states, clear_places, own_place
from siqvl.training.states import damage, publish, seal, staged_state

fork = get_context("fork")


def any_state(state: Path) -> bool:
    return True


def save(place: Path, step: int) -> Path:
    staged = staged_state(place, step)
    (staged / "shards").mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(bytes([step]) * 1000)
    (staged / "shards" / "rng.pth").write_bytes(b"numbers")
    seal(staged)
    return publish(staged, place)


def dead(folder: Path, *steps: int) -> Path:
    """The place of an attempt that has ended without a result."""
    with own_place(folder, any_state) as (place, _):
        for step in steps:
            save(place, step)
    return place


def living(folder: Path, step: int, body: Callable[[Path], None] = lambda place: None):
    """Another process that has begun, saved a state, and waits to be told to go on."""
    here, there = Pipe()

    def attempt() -> None:
        with own_place(folder, any_state) as (place, _):
            save(place, step)
            there.send(place)
            there.recv()
            body(place)
        there.send("ended")

    process = fork.Process(target=attempt)
    process.start()
    return process, here, here.recv()


def steps(folder: Path) -> list[int]:
    return [states.state_step(state) for state in all_states(folder)]


def test_a_new_attempt_has_the_newest_state_and_the_dead_ones_places_are_gone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "states"
    first = dead(folder, 2, 10)
    (first / "non-finite-step-11.json").write_text("{}")
    with own_place(folder, any_state) as (place, state):
        assert state == place / "checkpoint-10"
        assert damage(state) is None
        assert sorted(path.name for path in folder.iterdir()) == [place.name]
        assert (place / "non-finite-step-11.json").exists()  # a sentence has named it
    assert not first.exists()


def test_what_a_living_attempt_has_is_left_to_it(tmp_path: Path) -> None:
    process, pipe, other = living(tmp_path, 7, lambda place: save(place, 8) and None)
    before = {path: path.stat().st_ino for path in other.rglob("*")}
    with own_place(tmp_path, any_state) as (place, state):
        assert state == place / "checkpoint-7"
        assert damage(state) is None
        assert {path: path.stat().st_ino for path in other.rglob("*")} == before
        shutil.rmtree(state)
        assert damage(other / "checkpoint-7") is None
        clear_places(tmp_path)
        assert steps(tmp_path) == [7]
        pipe.send("go on")
        assert pipe.recv() == "ended"
        process.join()
        assert steps(tmp_path) == [8, 7]
        clear_places(tmp_path)
        assert not other.exists()
        assert place.exists()
    clear_places(tmp_path, place)
    assert not tmp_path.exists()


def test_a_killed_attempt_whose_children_live_on_is_a_dead_one(tmp_path: Path) -> None:
    """Workers of a loader notice seconds later that nobody reads from them any more."""
    ends, to_child = Pipe(duplex=False)

    def attempt() -> None:
        with own_place(tmp_path, any_state) as (place, _):
            save(place, 4)
            child = fork.Process(target=ends.recv, daemon=True)
            child.start()
            os.kill(os.getpid(), signal.SIGKILL)

    process = fork.Process(target=attempt)
    process.start()
    process.join()
    with own_place(tmp_path, any_state) as (place, state):
        assert state == place / "checkpoint-4"
        assert [path.name for path in tmp_path.iterdir()] == [place.name]
    to_child.send("end")


def test_of_a_damaged_state_the_one_before_is_handed_over(tmp_path: Path, caplog) -> None:
    dead(tmp_path, 5)
    process, pipe, other = living(tmp_path, 9)
    os.truncate(other / "checkpoint-9" / "model.safetensors", 10)
    with own_place(tmp_path, any_state) as (place, state):
        assert state == place / "checkpoint-5"
        assert "has 10 bytes where 1000 belong" in caplog.text
    pipe.send("end")
    process.join()


def test_states_of_earlier_versions_lie_in_the_folder_itself(tmp_path: Path) -> None:
    save(tmp_path, 6)
    save(tmp_path, 12)
    with own_place(tmp_path, any_state) as (place, state):
        assert state == place / "checkpoint-12"
    assert steps(tmp_path) == [12]


def test_a_state_that_may_not_be_used_is_not_kept(tmp_path: Path) -> None:
    dead(tmp_path, 6)
    with own_place(tmp_path, lambda state: False) as (_, state):
        assert state is None
    assert steps(tmp_path) == []


#: What a hand-over does to the disk, in its order, each after the one before is done.
CALLS = (
    (places, "lock"),
    (places, "_hand_over"),
    (places, "_bring"),
    (places, "sync"),
    (places, "last_good_state"),
    (places, "discard"),
    (shutil, "rmtree"),
    (places, "clear_leftovers"),
)


@pytest.mark.parametrize("alive", [False, True], ids=["from a dead one", "from a living one"])
def test_killed_at_every_step_of_a_hand_over_the_next_one_finds_the_state(
    tmp_path: Path, alive: bool
) -> None:
    """Before and after every call, each time it is made; the last kill is within no call."""
    killed = 0
    for number in range(1000):
        folder = tmp_path / str(number)
        dead(folder, 2)
        if alive:
            process, pipe, _ = living(folder, 5)
        else:
            dead(folder, 4)
            save(folder, 5)  # and one that was fetched from elsewhere
        child = fork.Process(target=doomed, args=(folder, number))
        child.start()
        child.join()
        if alive:
            pipe.send("end")
            process.join()
        with own_place(folder, any_state) as (place, state):
            assert state == place / "checkpoint-5", number
            assert damage(state) is None
            assert [path.name for path in folder.iterdir()] == [place.name], number
        shutil.rmtree(folder)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        killed += 1
    assert killed > 15


def doomed(folder: Path, number: int) -> None:
    """Take the state over, and die at the moment of a number."""
    moments = iter(range(1_000_000))

    def moment() -> None:
        if next(moments) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(real):
        def instead(*arguments, **options):
            moment()
            try:
                return real(*arguments, **options)
            finally:
                moment()

        return instead

    for module, name in CALLS:
        setattr(module, name, watched(getattr(module, name)))
    with own_place(folder, any_state):
        pass


def test_a_state_that_goes_while_it_is_linked_is_looked_for_again(
    tmp_path: Path, monkeypatch
) -> None:
    process, pipe, other = living(tmp_path, 7)
    link, gone = places.link_or_copy, []

    def slow(source, target) -> None:
        if not gone:
            gone.append(save(other, 8))  # as the living one does
            states.discard(other / "checkpoint-7")
        link(source, target)

    monkeypatch.setattr(places, "link_or_copy", slow)
    with own_place(tmp_path, any_state) as (place, state):
        assert state == place / "checkpoint-8"
    pipe.send("end")
    process.join()


def test_states_that_never_stay_hold_nobody_up(tmp_path: Path, monkeypatch, caplog) -> None:
    def quicker(state, own, *, is_dead) -> None:
        raise FileNotFoundError(state)

    monkeypatch.setattr(places, "_bring", quicker)
    dead(tmp_path, 7)
    with own_place(tmp_path, any_state) as (_, state):
        assert state is None
    assert "go before they are taken over" in caplog.text


def test_a_full_disk_takes_a_dead_ones_state_and_names_a_living_ones(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    """Moving takes no room, and neither do links; where there are none, a copy does."""

    def full(source, target) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places, "link_or_copy", full)
    process, pipe, other = living(tmp_path, 5)
    save(tmp_path, 4)
    with own_place(tmp_path, any_state) as (place, state):
        assert state == place / "checkpoint-4"
        assert "checkpoint-5 cannot be taken over" in caplog.text
        assert damage(other / "checkpoint-5") is None
        assert sorted(path.name for path in place.iterdir()) == [LOCK, "checkpoint-4"]
    pipe.send("end")
    process.join()


def test_where_there_are_no_locks_a_place_is_dead_after_a_day(tmp_path: Path, monkeypatch) -> None:
    def none(file, how) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    first = dead(tmp_path, 4)
    with own_place(tmp_path, any_state) as (place, state):
        assert state == place / "checkpoint-4"
        assert first.exists()
    for old in (first, place):
        os.utime(old, (0, os.stat(old).st_mtime - UNTOUCHED - 1))
    with own_place(tmp_path, any_state) as (place, state):
        assert [path.name for path in tmp_path.glob(f"{ATTEMPT}*")] == [place.name]
    clear_places(tmp_path, place)
    assert not tmp_path.exists()
