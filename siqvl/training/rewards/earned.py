"""What a completion earns: by the scorer, by its form, and by its length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from siqvl.composed_text import composed
from siqvl.evaluation.scoring.extraction import extract_answer
from siqvl.evaluation.scoring.scorers import scorer
from siqvl.recipe import Reward, RewardStage

#: TRL's form of a reward: takes columns, one entry a completion; gives a reward for each.
RewardFunction = Callable[..., list[float | None]]


@dataclass(frozen=True)
class Earned:
    """The rewards of a stage.

    Args:
        stage: the section `stages.rlvr` of a recipe.
        end_ids: tokens that end a completion.
    """

    stage: RewardStage
    end_ids: frozenset[int]

    def answer(
        self, text: str, ids: Sequence[int], answers: list[str], choices: list[str]
    ) -> float:
        """What the scorer gives for the answer, in [0, 1]; none for one that came to no end."""
        if not self._ended(ids):
            return 0.0
        given = extract_answer(text, self.stage.answer_marker)
        return scorer(self.stage.scorer).score(given, answers, choices)

    def format(self, text: str, ids: Sequence[int]) -> float:
        """1 for steps, one marker, one line of answer after it, and an end; otherwise 0."""
        steps, found, answer = composed(text).partition(composed(self.stage.answer_marker or ""))
        again = found and found in answer
        lines = [line for line in answer.splitlines() if line.strip()]
        return float(self._ended(ids) and bool(steps.strip()) and not again and len(lines) == 1)

    def length(self, ids: Sequence[int]) -> float:
        """0 up to `free_tokens` tokens, from there in a straight line to -1 at `max_new_tokens`.

        The soft punishment of DAPO (arXiv:2503.14476). The end token counts.
        """
        free = self.stage.free_tokens or self.stage.max_new_tokens
        room = max(self.stage.max_new_tokens - free, 1)
        return -min(max(len(ids) - free, 0) / room, 1.0)

    def total(self, text: str, ids: Sequence[int], answers: list[str], choices: list[str]) -> float:
        """All that the completion earns, each reward by its weight."""
        earned: dict[Reward, Callable[[], float]] = {
            "answer": lambda: self.answer(text, ids, answers, choices),
            "format": lambda: self.format(text, ids),
            "length": lambda: self.length(ids),
        }
        return sum(weight * earned[name]() for name, weight in self.stage.rewards.items())

    def functions(self) -> tuple[list[RewardFunction], list[float]]:
        """The recipe's rewards as TRL takes them, under whose names it logs them, with weights."""
        named: dict[Reward, RewardFunction] = {
            "answer": self._answers,
            "format": self._formats,
            "length": self._lengths,
        }
        functions = [_called(named[name], name) for name in self.stage.rewards]
        return functions, list(self.stage.rewards.values())

    def _ended(self, ids: Sequence[int]) -> bool:
        return bool(ids) and ids[-1] in self.end_ids

    def _answers(
        self,
        completions: list[str],
        completion_ids: list[list[int]],
        answers: list[list[str]],
        choices: list[list[str]],
        **_: Any,
    ) -> list[float | None]:
        each = zip(completions, completion_ids, answers, choices, strict=True)
        return [self.answer(*one) for one in each]

    def _formats(
        self, completions: list[str], completion_ids: list[list[int]], **_: Any
    ) -> list[float | None]:
        return [self.format(*one) for one in zip(completions, completion_ids, strict=True)]

    def _lengths(self, completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        return [self.length(ids) for ids in completion_ids]


def _called(function: RewardFunction, name: str) -> RewardFunction:
    """The function under the name that TRL logs it by."""

    def reward(**columns: Any) -> list[float | None]:
        return function(**columns)

    reward.__name__ = name
    return reward
