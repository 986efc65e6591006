"""What one request asks of the engine, and what it is told piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from siqvl.errors import UserError

#: Why a completion ended: by an end token or a stop string, by its limit, by whoever asked for it,
#: or because the model's pass failed.
Finish = Literal["stop", "length", "cancelled", "error"]

#: Strings that end a completion, and alternatives to a token, at most.
MOST_STOPS = 16
MOST_ALTERNATIVES = 20


@dataclass(frozen=True)
class Sampling:
    """How one completion is written.

    Attributes:
        max_new_tokens: its limit.
        temperature: 0 takes the likeliest token each time; above, one is drawn.
        top_p: draws among the likeliest tokens alone that together have this probability.
        seed: of what is drawn; an equal request with an equal seed has an equal answer, but for
            rounding, which depends on what shares a pass.
        number: tells apart the completions of one request, which have random numbers of their own.
        stop: strings before the first of which the text ends.
        top_logprobs: alternatives to tell beside the log-probability of each token; None: neither.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    number: int = 0
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be done.

        Raises:
            UserError: a value out of its range.
        """
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}, expected 1 or more")
        if not 0 <= self.temperature <= 100:  # NaN, too
            raise UserError(f"temperature is {self.temperature}, expected 0 to 100")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}, expected above 0 and at most 1")
        if len(self.stop) > MOST_STOPS or not all(self.stop):
            raise UserError(f"stop takes at most {MOST_STOPS} strings, none of them empty")
        if not 0 <= (self.top_logprobs or 0) <= MOST_ALTERNATIVES:
            raise UserError(
                f"top_logprobs is {self.top_logprobs}, expected 0 to {MOST_ALTERNATIVES}"
            )


class TokenLogprob(NamedTuple):
    """A token that was written, and how likely it was: of the model's scores, at temperature 1.

    Attributes:
        logprob: in nats.
        top: the likeliest tokens of that place, each with its log-probability.
    """

    id: int
    logprob: float
    top: list[tuple[int, float]]


class Piece(NamedTuple):
    """What has been written since the last piece.

    Attributes:
        text: all pieces together are the completion without surrounding space.
        tokens: of this piece, where log-probabilities were asked for.
        written: tokens of the completion so far, its end token too.
        finish: why it ended, in the last piece of all.
    """

    text: str
    tokens: list[TokenLogprob]
    written: int
    finish: Finish | None = None


Tell = Callable[[Piece], object]
