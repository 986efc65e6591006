"""The parameters of `/v1/chat/completions`: what each does, and which are refused or do nothing.

A parameter that would change the answer at OpenAI and cannot here is refused by a sentence; so is
one that nobody knows. What says nothing of the answer (who asks, how it is billed or cached) is
taken and does nothing.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from siqvl.generation.request import MOST_ALTERNATIVES, Sampling
from siqvl.recipe.reading.load import explain
from siqvl.serving.server.refusals import Refused
from siqvl.serving.server.server_settings import ServerSettings

#: They say nothing of the answer.
IDLE = frozenset(
    {
        *("user", "safety_identifier", "metadata", "service_tier"),
        *("prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"),
    }
)
#: They would change the answer, but for these values.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "store": (False,),
}
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class StreamOptions(BaseModel):
    """How a stream is told."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False  # pads events at OpenAI; the answer is the same


class ChatParameters(BaseModel):
    """What a request says, beside what is refused or does nothing; ranges are OpenAI's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=2_000)
    max_tokens: int | None = Field(None, ge=1, le=10**9)
    max_completion_tokens: int | None = Field(None, ge=1, le=10**9)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    stop: list[Stop] = Field([], max_length=4)  # or one text
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int = Field(1, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @classmethod
    def read(cls, content: dict[str, Any], settings: ServerSettings) -> ChatParameters:
        """Reads a request's JSON object.

        Raises:
            Refused: a parameter that is wrong, or asks for what there is not.
        """
        given = {key: value for key, value in content.items() if value is not None}
        for key, values in NEUTRAL.items():
            if key in given and given.pop(key) not in values:
                said = f"`{key}` has no effect on this model, and is not taken: leave it out"
                raise Refused(400, said, param=key, code="unsupported_parameter")
        given = {key: value for key, value in given.items() if key not in IDLE}
        try:
            found = cls.model_validate(given)
        except ValidationError as error:
            param = str(error.errors()[0]["loc"][0]) if error.errors()[0]["loc"] else None
            raise Refused(400, explain(error, cls), param=param) from None
        found._check_together(settings)
        return found

    def _check_together(self, settings: ServerSettings) -> None:
        if self.n > settings.max_choices:
            said = f"`n` is {self.n}, at most {settings.max_choices} are written"
            raise Refused(400, said, param="n")
        if self.top_logprobs is not None and not self.logprobs:
            raise Refused(400, "`top_logprobs` needs `logprobs: true`", param="top_logprobs")
        if self.stream_options is not None and not self.stream:
            raise Refused(400, "`stream_options` needs `stream: true`", param="stream_options")
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            said = "`max_tokens` and `max_completion_tokens` differ; send one of them"
            raise Refused(400, said, param="max_tokens")

    @property
    def with_usage(self) -> bool:
        """Return whether a stream ends with the counts of its tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def samplings(self, settings: ServerSettings, taken: int, most: int) -> list[Sampling]:
        """Says how each choice is written.

        Args:
            taken: tokens of the conversation and its pictures.
            most: tokens that these and an answer have together.

        Raises:
            Refused: it leaves none, or fewer than are asked for.
        """
        asked, room = self.max_completion_tokens or self.max_tokens, most - taken
        if room < (asked or 1):
            said = (
                f"the conversation takes {taken:,} of the {most:,} tokens that it and an answer "
                f"may have, and leaves room for {max(room, 0):,}"
            ) + (f"; {asked:,} are asked for" if asked else "")
            raise Refused(400, said, param="messages", code="context_length_exceeded")
        assert settings.max_new_tokens is not None  # by who started the server
        temperature = settings.temperature if self.temperature is None else self.temperature
        seed = secrets.randbits(63) if self.seed is None else self.seed
        return [
            Sampling(
                max_new_tokens=asked or min(settings.max_new_tokens, room),
                temperature=temperature,
                top_p=self.top_p,
                seed=seed,
                number=number,
                stop=tuple(self.stop),
                top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            )
            for number in range(self.n)
        ]
