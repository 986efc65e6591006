"""Pairs of the tiny base's vocabulary, and what the model makes of each side by itself."""

from pathlib import Path

import torch
from PIL import Image

from siqvl.data.encode import encode_preference
from siqvl.data.schema import message, preference_row
from siqvl.model.assemble import assemble

BASE = Path(__file__).parents[2] / "recipes" / "tiny_base"
ANSWERS = ("red", "a blue circle and a red square", "2", "yes", "no", "three small squares", "left")


def random_model(attention: str, dtype: torch.dtype = torch.float64, *, max_image_tokens: int = 4):
    """Of the tiny base's shape and random weights; everything in it learns."""
    torch.manual_seed(0)
    model, processor = assemble(
        str(BASE / "vision"),
        str(BASE / "language"),
        pixel_shuffle_factor=None,
        max_image_tokens=max_image_tokens,
        init="config",
        attn_implementation=attention,
    )
    return model.to(dtype).train(), processor


def picture(seed: int) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (24, 24, 3), dtype=torch.uint8, generator=generator)
    return Image.fromarray(pixels.numpy())


def pair(processor, number: int, images: int, *, questions: int = 1, **changed) -> dict:
    """One encoded pair; `changed` replaces its question, chosen or rejected text."""
    pictures = [picture(100 * number + image) for image in range(images)]
    chosen, rejected = ANSWERS[number % 7], ANSWERS[(number + 3) % 7]
    question = "What color is the circle? " * questions
    row = preference_row(
        f"made/{number}",
        pictures,
        [message("user", changed.get("question", question))],
        [message("assistant", changed.get("chosen", chosen))],
        [message("assistant", changed.get("rejected", rejected))],
        source="made",
    )
    item = {"images": pictures}
    for side, one in zip(("chosen", "rejected"), encode_preference(row, processor), strict=True):
        item |= {f"{side}_input_ids": one.input_ids, f"{side}_labels": one.labels}
    return item


def alone(model, processor, item: dict, side: str) -> torch.Tensor:
    """log p of each completion token, from the logits of a plain pass of that side by itself."""
    images = {}
    if item["images"]:
        found = processor.image_processor(images=item["images"], return_tensors="pt")
        images = {"pixel_values": found["pixel_values"].to(model.dtype)}
    ids = torch.tensor([item[f"{side}_input_ids"]])
    labels = torch.tensor(item[f"{side}_labels"])[1:]
    scores = model(ids, **images, use_cache=False).logits[0, :-1].log_softmax(-1)
    learned = labels != -100
    return scores[learned].gather(1, labels[learned, None])[:, 0]
