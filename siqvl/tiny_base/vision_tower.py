"""A tiny SigLIP tower, taught by labels: each patch tells its corner, and what else lies there.

SigLIP proper learns from captions of the web. On a laptop's minutes that does not get as far as
shapes (measured: contrastive captions leave a linear probe at 44 % on shape), so the tiny tower is
supervised, and its card says so. The heads that read corner, colour and shape are thrown away.
"""

from __future__ import annotations

import random

import torch
from PIL.Image import Image
from torch import nn
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from siqvl.data.shapes.scenes import CELLS, COLORS, SHAPES, SIDE, World, draw, place
from siqvl.tiny_base.fit import fit

PATCH = 8
GRID = SIDE // PATCH
#: The corner that each patch lies in, in reading order.
CORNER_OF = [
    2 * (row >= GRID // 2) + (column >= GRID // 2) for row in range(GRID) for column in range(GRID)
]
NOTHING = -1  # label of an empty corner

Labels = list[tuple[int, int, int]]  # (colour, shape, which corner) of each corner


def image_processor() -> SiglipImageProcessor:
    """SigLIP's own preprocessing at the tiny size."""
    return SiglipImageProcessor(size={"height": SIDE, "width": SIDE})


def scene_batch(split: str, seed: int, step: int, size: int) -> tuple[list[Image], list[Labels]]:
    """Pictures with one to four objects, and the labels of the four corners of each."""
    world = World(split)
    pictures, labels = [], []
    for index in range(size):
        rng = random.Random(f"siqvl bootstrap tower/{seed}/{split}/{step}/{index}")
        while True:
            scene = place(rng, [world.pick(rng) for _ in range(rng.randint(1, len(CELLS)))])
            if world.owns(scene):
                break
        corners = [(NOTHING, NOTHING, cell) for cell in range(len(CELLS))]
        for thing in scene:
            color, shape = list(COLORS).index(thing.color), SHAPES.index(thing.shape)
            corners[thing.cell] = (color, shape, thing.cell)
        pictures.append(draw(scene, rng))
        labels.append(corners)
    return pictures, labels


def train_tower(
    seed: int, steps: int, batch_size: int
) -> tuple[SiglipVisionModel, dict[str, float]]:
    """Train tower and heads.

    Returns:
        The tower alone, and the share of the patches of fresh test scenes that tell the `color` and
        the `shape` of what lies in their corner.
    """
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
    tower.set_attn_implementation("eager")
    classes = (len(COLORS) + 1, len(SHAPES) + 1, len(CELLS))  # the last colour and shape: none
    heads = nn.ModuleList([nn.Linear(config.hidden_size, count) for count in classes])
    preprocess = image_processor()

    def logits_and_labels(split: str, step: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        pictures, labels = scene_batch(split, seed, step, batch_size)
        pixels = preprocess(pictures, return_tensors="pt")["pixel_values"]
        with torch.autocast("cpu", torch.bfloat16):  # x1.6 on CPUs with eager attention
            patches = tower(pixel_values=pixels).last_hidden_state
        targets = torch.tensor(labels)[:, CORNER_OF]  # [batch, patches, 3]
        return [
            (head(patches.float()), targets[..., part] % classes[part])  # NOTHING: the last class
            for part, head in enumerate(heads)
        ]

    def loss_of_step(step: int) -> torch.Tensor:
        losses = [
            nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
            for logits, labels in logits_and_labels("train", step)
        ]
        return torch.stack(losses).sum()

    parameters = [*tower.parameters(), *heads.parameters()]
    fit(parameters, loss_of_step, steps=steps, title="tower")
    tower.eval()
    with torch.inference_mode():
        hits = [
            [
                (logits.argmax(-1) == labels).float().mean().item()
                for logits, labels in logits_and_labels("test", step)
            ]
            for step in range(8)
        ]
    color, shape, _ = (sum(column) / len(hits) for column in zip(*hits, strict=True))
    return tower, {"color": color, "shape": shape}
