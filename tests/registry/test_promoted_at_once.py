"""Promotions at the same time, step by step in many orders: the best version is champion after all.

A step is what a promotion asks of the registry, which is a real one.
"""

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from siqvl.registry.promotion import CHAMPION, Outcome, promote
from siqvl.registry.versions import Registry
from tests.registry.conftest import BENCHMARK, Scored

STEPS = ("holder", "give", "tag", "tagged")
ENOUGH = 40  # steps: more than a promotion takes


class Turns:
    """Lets threads take steps in a given order of their names; who is done is passed over."""

    def __init__(self, order: str) -> None:
        self.taken: list[str] = []
        self._order, self._done = deque(order), set[str]()
        self._changed = threading.Condition()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        with self._changed:
            assert self._changed.wait_for(lambda: self._next() in (name, None), timeout=60)
            self.taken.append(name)
            yield
            if self._order:
                self._order.popleft()
            self._changed.notify_all()

    def end(self, name: str) -> None:
        with self._changed:
            self._done.add(name)
            self._changed.notify_all()

    def _next(self) -> str | None:
        while self._order and self._order[0] in self._done:
            self._order.popleft()
        return self._order[0] if self._order else None


def promoted(registry: Registry, candidates: dict[str, Scored], order: str) -> dict[str, Outcome]:
    """Promote all of them at once, each in a thread of its name."""
    turns, me = Turns(order), threading.local()

    def taking_turns(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            with turns.step(me.name):
                return function(*arguments)

        return step

    def run(name: str) -> Outcome:
        me.name = name
        try:
            return promote(registry, *candidates[name], BENCHMARK)
        finally:
            turns.end(name)

    with pytest.MonkeyPatch.context() as patched:
        for name in STEPS:
            patched.setattr(Registry, name, taking_turns(getattr(Registry, name)))
        with ThreadPoolExecutor(len(candidates)) as pool:
            outcomes = dict(zip(candidates, pool.map(run, candidates), strict=True))
    assert set(turns.taken) == set(candidates)
    return outcomes


def shuffled(names: str, seed: int) -> str:
    order = [*names * ENOUGH]
    random.Random(seed).shuffle(order)
    return "".join(order)


ORDERS = [f"{'A' * steps}{'B' * ENOUGH}" for steps in range(2, 8)]  # all of B in the midst of A
ORDERS += [f"{'B' * steps}{'A' * ENOUGH}" for steps in range(2, 8)]
ORDERS += ["AB" * ENOUGH, "BBBAAA" * ENOUGH, *(shuffled("AB", seed) for seed in range(3))]


@pytest.mark.parametrize("rights", [(700, 650), (650, 700)], ids=str)
def test_the_better_of_two_is_champion(
    registry: Registry, candidate: Callable[..., Scored], rights: tuple[int, int]
) -> None:
    before, a, b = (candidate(*one) for one in zip("xab", (500, *rights), strict=True))
    best = "A" if rights[0] > rights[1] else "B"
    candidates = {"A": a, "B": b}
    for order in ORDERS:
        registry.give(CHAMPION, before[0])  # by hand: who got it in earlier rounds does not count
        outcomes = promoted(registry, candidates, order)
        holder = registry.holder(CHAMPION)
        assert holder is not None
        assert holder.number == candidates[best][0], order
        assert outcomes[best].moved, order


def test_of_two_that_do_not_beat_each_other_one_is_champion_and_says_so(
    registry: Registry, candidate: Callable[..., Scored]
) -> None:
    before, a, b = (candidate(*one) for one in zip("xab", (500, 650, 650), strict=True))
    candidates = {"A": a, "B": b}
    for order in ORDERS[::2]:
        registry.give(CHAMPION, before[0])
        outcomes = promoted(registry, candidates, order)
        holder = registry.holder(CHAMPION)
        assert holder is not None
        assert [name for name, outcome in outcomes.items() if outcome.moved] == [
            name for name, one in candidates.items() if one[0] == holder.number
        ], order


def test_the_best_of_three_is_champion(
    registry: Registry, candidate: Callable[..., Scored]
) -> None:
    before, *three = (candidate(*one) for one in zip("xabc", (500, 600, 700, 650), strict=True))
    candidates = dict(zip("ABC", three, strict=True))
    orders = [shuffled("ABC", seed) for seed in range(8)] + ["ABC" * ENOUGH, "CBA" * ENOUGH]
    for order in orders:
        registry.give(CHAMPION, before[0])
        promoted(registry, candidates, order)
        holder = registry.holder(CHAMPION)
        assert holder is not None
        assert holder.number == candidates["B"][0], order


def test_the_loser_says_who_is_better(registry: Registry, candidate: Callable[..., Scored]) -> None:
    before, a, b = (candidate(*one) for one in zip("xab", (500, 700, 650), strict=True))
    registry.give(CHAMPION, before[0])
    order = "B" * 4 + "A" * ENOUGH  # B has read who is champion, twice, before A is promoted
    outcomes = promoted(registry, {"A": a, "B": b}, order)
    assert outcomes["A"].moved
    assert not outcomes["B"].moved
    assert outcomes["B"].sentence.startswith(
        f"version 3 of `{registry.name}` does not become the champion: 65.0 % of 1,000 questions "
        "of `vqa` right, version 2 70.0 %: −5.0 points"
    )


def test_what_a_person_does_meanwhile_stays(
    registry: Registry, candidate: Callable[..., Scored], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, chosen, a, b = (
        candidate(*one) for one in zip("xyab", (500, 400, 650, 700), strict=True)
    )
    registry.give(CHAMPION, before[0])
    tag = Registry.tag

    def then_a_person(self: Registry, number: int, tags: dict[str, str]) -> None:
        monkeypatch.setattr(Registry, "tag", tag)
        promote(registry, *b, BENCHMARK)
        tag(self, number, tags)
        registry.give(CHAMPION, chosen[0])

    monkeypatch.setattr(Registry, "tag", then_a_person)
    promote(registry, *a, BENCHMARK)
    holder = registry.holder(CHAMPION)
    assert holder is not None
    assert holder.number == chosen[0]
