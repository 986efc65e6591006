"""Everything that may be set of a server; `siqvl serve --help` has the same words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from siqvl.recipe.section import Section

MIB = 2**20


class ServerSettings(Section):
    """Where a server listens, what it takes, and for how long."""

    host: str = Field("127.0.0.1", description="address to listen at; 0.0.0.0: all of them")
    port: int = Field(8000, ge=0, le=65535, description="0: one that is free")
    name: str | None = Field(
        None, description="what the model is called; else by its recipe and stage"
    )
    places: PositiveInt | None = Field(
        None, description="answers written side by side; else the recipe's serving.batch_size"
    )
    waiting: int = Field(64, ge=0, description="answers that may wait; a request more gets 429")
    max_length: PositiveInt | None = Field(
        None, description="tokens of a conversation and its answer; else what the model reads"
    )
    max_new_tokens: PositiveInt | None = Field(
        None,
        description="of an answer whose request has no max_completion_tokens; else the recipe's "
        "serving.max_new_tokens",
    )
    temperature: float = Field(
        0.0, ge=0, le=2, description="of a request that has none; 0: the likeliest tokens"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 on a GPU that computes in it, else fp32"
    )
    max_choices: PositiveInt = Field(8, description="the most that `n` may ask for")
    max_body_bytes: PositiveInt = Field(
        64 * MIB, description="of a request; of all that are read at a time, four times as much"
    )
    max_pictures: PositiveInt = Field(64, description="in a request")
    max_request_pixels: PositiveInt = Field(
        800_000_000, description="of all pictures of a request together"
    )
    decoders: PositiveInt = Field(2, description="threads that decode pictures")
    body_seconds: PositiveFloat = Field(
        30.0, le=10**6, description="within which a request has to arrive, head and body each"
    )
    request_seconds: PositiveFloat = Field(
        300.0, le=10**6, description="that a request may take in all; then it gets 504"
    )
    stop_seconds: PositiveFloat = Field(
        30.0, le=10**6, description="that running answers have to end after SIGTERM"
    )
    allow_urls: bool = Field(
        False, description="fetch pictures from public http(s) addresses that requests name"
    )
    url_bytes: PositiveInt = Field(20 * MIB, description="of a picture that is fetched")
    url_seconds: PositiveFloat = Field(
        10.0, le=10**6, description="that fetching a picture may take"
    )
    open: bool = Field(False, description="without API keys, listen to other machines as well")

    @property
    def all_bodies_bytes(self) -> int:
        """Bytes of the bodies that are held at a time."""
        return 4 * self.max_body_bytes
