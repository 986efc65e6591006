"""What all requests of one server share."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import time

from siqvl.generation.engine import Engine
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import DataPrep
from siqvl.serving.server.api_keys import ApiKeys
from siqvl.serving.server.asked.request_pictures import RequestPictures
from siqvl.serving.server.door import Door
from siqvl.serving.server.request_metrics import RequestMetrics
from siqvl.serving.server.server_settings import ServerSettings


@dataclass
class Service:
    """A model that is served.

    Attributes:
        settings: with `places` and `max_new_tokens`, which are the recipe's where nobody set them.
        limits: of a conversation, and of one picture.
        name: what the model is called.
        ends: tokens that end an answer and are no part of it.
    """

    settings: ServerSettings
    engine: Engine
    processor: SiQVLProcessor
    limits: DataPrep
    name: str
    ends: frozenset[int]
    keys: ApiKeys
    created: int = field(default_factory=lambda: int(time()))

    def __post_init__(self) -> None:
        """Opens the door, and begins to count."""
        assert self.settings.places is not None
        room = self.settings.places + self.settings.waiting
        self.door = Door(room, self.settings.all_bodies_bytes)
        self.metrics = RequestMetrics(self.name, self.engine, self.door)
        pixels = self.limits.max_image_pixels
        self.pictures = RequestPictures(self.processor, self.settings, pixels)

    @property
    def ready(self) -> bool:
        """Return whether a request that comes now is answered."""
        return self.engine.alive and not self.door.closed

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the engine's thread and those that decode."""
        self.door.closed = True
        self.pictures.close()
        self.engine.close()
