"""Work in other processes: results in order, and one sentence when a process dies."""

import os
import time

import pytest

from siqvl.data.processes import in_order, processes_with
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
