"""The questions of a step, by what their completions earn: dynamic sampling (arXiv:2503.14476).

A group whose completions all earned the same teaches nothing: each is as good as its group. A step
may ask further questions in the place of such ones. What it asks follows from the plan and the
weights, so that a run that goes on from a state asks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: Rewards nearer to one another than this are equal.
EQUAL = 1e-6


class Group(NamedTuple):
    """The completions of a question, and what each earned."""

    item: int
    completions: list[list[int]]
    rewards: list[float]

    @property
    def differs(self) -> bool:
        """Whether one completion earned more than another."""
        return max(self.rewards) - min(self.rewards) > EQUAL


@dataclass(frozen=True)
class Draw:
    """The groups of a step.

    Attributes:
        kept: those that are learned from, in the order in which they were asked.
        written: all of them, in that order.
    """

    kept: list[Group]
    written: list[Group]

    def figures(self) -> dict[str, float]:
        """How many questions were asked, and how their completions did before any was chosen."""
        rewards = [reward for group in self.written for reward in group.rewards]
        differing = sum(group.differs for group in self.written)
        return {
            "drawn/questions": float(len(self.written)),
            "drawn/differing": differing / len(self.written),
            "drawn/reward": sum(rewards) / len(rewards),
        }


def draw_groups(
    questions: Sequence[int], wanted: int, answer: Callable[[Sequence[int]], list[Group]]
) -> Draw:
    """Asks `wanted` questions at a time until as many groups differ, or there are no more.

    Args:
        questions: those that the step may ask, in their order.
        wanted: groups of the step. Where too few differ, the first of the others fill it up.
        answer: writes and judges completions of some questions, a group each.
    """
    written: list[Group] = []
    for start in range(0, len(questions), wanted):
        written += answer(questions[start : start + wanted])
        if sum(group.differs for group in written) >= wanted:
            break
    by_use = sorted(range(len(written)), key=lambda number: not written[number].differs)  # stable
    return Draw([written[number] for number in sorted(by_use[:wanted])], written)
