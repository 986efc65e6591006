"""How a harness wants an answer written: `generation_kwargs` of a task, typed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from siqvl.errors import UserError
from siqvl.evaluation.scoring.extraction import without_thoughts

logger = logging.getLogger(__name__)

#: What changes nothing; at any other value these keys ask for what is not done here.
NEUTRAL: dict[str, tuple[Any, ...]] = {"num_beams": (None, 1), "repetition_penalty": (None, 1)}
#: The same of a drawn answer; where the likeliest token is taken, they have no meaning.
NEUTRAL_IF_DRAWN: dict[str, tuple[Any, ...]] = {"top_p": (None, 1), "top_k": (None, -1, 0)}


@dataclass(frozen=True)
class Decoding:
    """How one answer is written.

    Attributes:
        temperature: 0 takes the likeliest token each time.
        until: the answer ends before the first of these texts.
    """

    max_new_tokens: int
    temperature: float = 0.0
    until: tuple[str, ...] = ()

    def cut(self, answer: str) -> str:
        """Ends an answer where `until` says; space around it does not count, nor do thoughts."""
        answer = without_thoughts(answer)
        places = [place for stop in self.until if (place := answer.find(stop)) >= 0]
        return answer[: min(places)].strip() if places else answer


def read_decoding(values: Mapping[str, Any], *, task: str, max_new_tokens: int) -> Decoding:
    """Reads the `generation_kwargs` of a task.

    As in transformers, `do_sample: false` takes the likeliest token whatever the temperature, and
    `do_sample: true` without one means 1. A key that is not known is left aside, with a warning.

    Args:
        task: what it is called in errors.
        max_new_tokens: where the task names none.

    Raises:
        UserError: a value that is none, or a way to write that is not done here.
    """
    given = dict(values)
    tokens = _number(given.pop("max_new_tokens", None), task, "max_new_tokens", max_new_tokens)
    if tokens < 1 or tokens != int(tokens):
        raise UserError(f"task {task}: max_new_tokens is {tokens}, expected a number from 1")
    sampled = given.pop("do_sample", None)
    otherwise = 1.0 if sampled else 0.0
    temperature = _number(given.pop("temperature", None), task, "temperature", otherwise)
    if not 0 <= temperature < float("inf"):
        raise UserError(f"task {task}: temperature is {temperature}, expected 0 or more")
    decoding = Decoding(
        int(tokens),
        temperature if sampled or sampled is None else 0.0,
        _stops(given.pop("until", None), task),
    )
    neutral = NEUTRAL | (NEUTRAL_IF_DRAWN if decoding.temperature else {})
    for key in (*NEUTRAL, *NEUTRAL_IF_DRAWN):
        value = given.pop(key, None)
        if value not in neutral.get(key, (value,)):
            raise UserError(
                f"task {task}: {key} is {value}, which SiQ-VL does not do: it takes the likeliest "
                "token, or draws one at a temperature"
            )
    if given:
        logger.warning("task %s: not known, and left aside: %s", task, ", ".join(sorted(given)))
    return decoding


def _number(value: Any, task: str, key: str, otherwise: float) -> float:
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"task {task}: {key} is {value!r}, expected a number")
    return value


def _stops(value: Any, task: str) -> tuple[str, ...]:
    """The texts of `until`; an empty one, or none at all, ends nothing."""
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list | tuple) or not all(isinstance(one, str) for one in stops):
        raise UserError(f"task {task}: until is {value!r}, expected a text or a list of texts")
    return tuple(stop for stop in stops if stop)
