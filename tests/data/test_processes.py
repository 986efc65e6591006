"""Work in other processes: results in order, and one sentence when a process dies."""

import os
import time
from concurrent.futures import Future

import pytest

from siqvl.data.processes import in_order, processes_with, shared_out, started
from siqvl.errors import UserError


def scaled(tool: int, number: int) -> int:
    time.sleep(0.02 * (number % 3))  # later ones are ready earlier
    return tool * number


def dies(tool: int, number: int) -> int:
    if number == 3:
        os._exit(1)
    return number


def test_results_come_in_order_and_arguments_are_asked_for_a_little_ahead() -> None:
    asked: list[int] = []

    def numbers():
        for number in range(12):
            asked.append(number)
            yield (number,)

    with processes_with(10, 2) as pool:
        results = in_order(pool, scaled, numbers(), ahead=3)
        assert next(results) == 0
        assert len(asked) == 4
        assert list(results) == [10 * number for number in range(1, 12)]


def test_a_process_that_dies_is_one_sentence() -> None:
    with (
        processes_with(0, 1) as pool,
        pytest.raises(UserError, match=r"a worker process died, .*; lower `data.processes`"),
    ):
        list(in_order(pool, dies, ((number,) for number in range(6)), ahead=2))


def where(tool: str, number: int) -> tuple[int, str, int]:
    time.sleep(0.02)
    return number, tool, os.getpid()


def test_this_process_works_too_and_results_come_in_order() -> None:
    with processes_with("theirs", 1) as pool:
        ready = started(pool)
        ready.result()
        arguments = ((number,) for number in range(40))
        options = {"ahead": 8, "workers": 1}
        found = list(shared_out(pool, ready, "ours", where, arguments, **options))
    assert [number for number, _, _ in found] == list(range(40))
    assert {tool for _, tool, process in found if process == os.getpid()} == {"ours"}
    assert {tool for _, tool, process in found if process != os.getpid()} == {"theirs"}


def test_this_process_does_not_wait_for_others_to_start() -> None:
    with processes_with("theirs", 1) as pool:
        never: Future[None] = Future()
        arguments = ((number,) for number in range(4))
        options = {"ahead": 8, "workers": 1}
        found = list(shared_out(pool, never, "ours", where, arguments, **options))
    assert found == [(number, "ours", os.getpid()) for number in range(4)]


def fails(tool: int, number: int) -> int:
    if number >= tool:
        raise ValueError(f"number {number}")
    return number


@pytest.mark.parametrize("begun", [True, False])
def test_what_fails_is_told_in_its_turn(begun: bool) -> None:
    with processes_with(3, 1) as pool:
        ready = started(pool) if begun else Future()
        if begun:
            ready.result()
        results = shared_out(
            pool, ready, 3, fails, ((number,) for number in range(9)), ahead=8, workers=1
        )
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="number 3"):
            next(results)


def dies_elsewhere(tool: int, number: int) -> int:
    if os.getpid() != tool:
        os._exit(1)
    return number


def test_another_process_that_dies_is_one_sentence() -> None:
    with processes_with(os.getpid(), 1) as pool:
        ready = started(pool)
        ready.result()
        arguments = ((number,) for number in range(60))
        options = {"ahead": 4, "workers": 1}
        results = shared_out(pool, ready, os.getpid(), dies_elsewhere, arguments, **options)
        with pytest.raises(UserError, match=r"a worker process died, .*; lower `data.processes`"):
            list(results)


def slow_elsewhere(tool: int, number: int) -> int:
    time.sleep(0.5 if os.getpid() != tool else 0.0)
    return os.getpid()


def test_the_last_one_is_not_left_waiting_while_this_process_is_idle() -> None:
    with processes_with(os.getpid(), 1) as pool:
        ready = started(pool)
        ready.result()
        for count in range(2, 5):  # the first is elsewhere meanwhile
            arguments = ((number,) for number in range(count))
            options = {"ahead": 8, "workers": 1}
            found = list(shared_out(pool, ready, os.getpid(), slow_elsewhere, arguments, **options))
            assert found[0] != os.getpid()
            assert found[-1] == os.getpid()
        (alone,) = shared_out(pool, ready, os.getpid(), slow_elsewhere, [(0,)], **options)
        assert alone != os.getpid()  # nothing keeps the other from it
