"""A tiny SigLIP tower, taught by labels: what colour and shape lies in each corner.

SigLIP proper learns from captions of the web. On a laptop's minutes that does not get as far as
shapes (measured: contrastive captions leave a linear probe at 44 % on shape), so the tiny tower is
supervised, and its card says so. The two heads that read colour and shape apart are thrown away.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from siqvl.bootstrap.loop import fit
from siqvl.data.shapes.scenes import CELLS, COLORS, SHAPES, SIDE, World, draw, place

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from transformers import SiglipImageProcessor, SiglipVisionModel

PATCH = 8
NOTHING = -1  # label of an empty corner

Labels = list[tuple[int, int]]  # (colour, shape) of each corner


class TowerScores(NamedTuple):
    """Accuracy of the heads on corners of fresh scenes of the test split."""

    color: float
    shape: float


def image_processor() -> SiglipImageProcessor:
    """SigLIP's own preprocessing at the tiny size."""
    from transformers import SiglipImageProcessor

    return SiglipImageProcessor(size={"height": SIDE, "width": SIDE})


def scene_batch(split: str, seed: int, step: int, size: int) -> tuple[list[Image], list[Labels]]:
    """Pictures with one to four objects, and (colour, shape) labels of the four corners of each."""
    world = World(split)
    pictures, labels = [], []
    for index in range(size):
        rng = random.Random(f"siqvl bootstrap tower/{seed}/{split}/{step}/{index}")
        while True:
            scene = place(rng, [world.pick(rng) for _ in range(rng.randint(1, len(CELLS)))])
            if world.owns(scene):
                break
        corners = [(NOTHING, NOTHING)] * len(CELLS)
        for thing in scene:
            corners[thing.cell] = (list(COLORS).index(thing.color), SHAPES.index(thing.shape))
        pictures.append(draw(scene, rng))
        labels.append(corners)
    return pictures, labels


def train_tower(seed: int, steps: int, batch_size: int) -> tuple[SiglipVisionModel, TowerScores]:
    """Train tower and heads; returns the tower alone."""
    import torch
    from torch import nn
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(seed)
    config = SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    tower = SiglipVisionModel(config)
    classes = (len(COLORS) + 1, len(SHAPES) + 1)  # the last class is an empty corner
    heads = nn.ModuleList([nn.Linear(config.hidden_size, count) for count in classes])
    preprocess = image_processor()

    def logits_and_labels(split: str, step: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        pictures, labels = scene_batch(split, seed, step, batch_size)
        pixels = preprocess(pictures, return_tensors="pt")["pixel_values"]
        corners = corner_features(tower(pixel_values=pixels).last_hidden_state)
        targets = torch.tensor(labels)  # [batch, corners, 2]
        return [
            (head(corners), targets[..., part] % classes[part])  # NOTHING wraps to the last class
            for part, head in enumerate(heads)
        ]

    def loss_of_step(step: int) -> torch.Tensor:
        losses = [
            nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
            for logits, labels in logits_and_labels("train", step)
        ]
        return torch.stack(losses).sum()

    parameters = [*tower.parameters(), *heads.parameters()]
    fit(parameters, loss_of_step, steps=steps, learning_rate=1e-3, title="tower")
    tower.eval()
    hits = []
    with torch.inference_mode():
        for step in range(8):
            hits.append(
                [
                    (logits.argmax(-1) == labels).float().mean().item()
                    for logits, labels in logits_and_labels("test", step)
                ]
            )
    color, shape = (sum(column) / len(hits) for column in zip(*hits, strict=True))
    return tower, TowerScores(color, shape)


def corner_features(patches: torch.Tensor) -> torch.Tensor:
    """Mean patch feature of each quadrant: [batch, side*side, hidden] -> [batch, 4, hidden]."""
    batch, count, hidden = patches.shape
    half = int(count**0.5) // 2
    return patches.view(batch, 2, half, 2, half, hidden).mean(dim=(2, 4)).flatten(1, 2)
