"""A checkpoint that is loaded to talk to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from siqvl.chat.conversation import Conversation
from siqvl.chat.picture_input import Pictures
from siqvl.checkpoint import read_card
from siqvl.device import Precision
from siqvl.generation.completions import load_to_answer
from siqvl.generation.engine import Engine
from siqvl.generation.request import Sampling
from siqvl.serving.settings import ServingSettings


@dataclass(frozen=True)
class Chat:
    """What a conversation needs, with the limits that the checkpoint is served with.

    Attributes:
        title: what is talked to, in a line.
    """

    engine: Engine
    conversation: Conversation
    pictures: Pictures
    sampling: Sampling
    title: str


@contextmanager
def open_chat(
    checkpoint: Path,
    *,
    precision: Precision = "fp32",
    allow_urls: bool = False,
    system: str | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[Chat]:
    """Loads a checkpoint, which is let go when the block ends.

    Args:
        max_new_tokens: None: as many as an answer has when the checkpoint is served.

    Raises:
        UserError: it cannot be loaded, or a figure is out of its range.
    """
    from transformers.utils import logging

    card = read_card(checkpoint)
    served = ServingSettings.of(card.recipe)
    sampling = Sampling(
        served.max_new_tokens if max_new_tokens is None else max_new_tokens,
        temperature,
        top_p,
        seed,
    )
    logging.disable_progress_bar()
    model, processor = load_to_answer(checkpoint, served.attention, precision)
    title = f"{card.recipe_name}, {card.stage} {card.hash[:12]}, {precision} on {model.device.type}"
    with Engine(model, processor, places=1, waiting=1) as engine:
        conversation = Conversation(processor, served.limits, system)
        pictures = Pictures(served.max_image_pixels, allow_urls)
        yield Chat(engine, conversation, pictures, sampling, title)
