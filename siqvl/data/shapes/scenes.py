"""The generated world: small pictures of large coloured shapes, one in each corner at most.

Pillow only, no downloads. Everything about scene `i` follows from (seed, split, family, i), so any
process can draw any scene by itself. Splits hold different arrangements whatever the seed is: which
of `train`, `validation` and `test` an arrangement belongs to is decided by a hash of the
arrangement itself. Settings are chosen on `validation`, so that `test` is looked at once they are.
The combinations in HELD_OUT are never shown outside the split `heldout`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw


SIDE = 64  # pixels
COLORS = {
    "red": (214, 30, 38),
    "green": (24, 150, 62),
    "blue": (38, 84, 222),
    "yellow": (246, 202, 14),
    "purple": (150, 44, 190),
    "black": (24, 24, 28),
}
SHAPES = ("circle", "square", "triangle", "cross")
#: One word each: of "top left", a tiny model learns the first word long before the second.
CELLS = ("northwest", "northeast", "southwest", "southeast")
SPLITS = ("train", "validation", "test", "heldout")
KEPT_SHARE = 10  # every tenth arrangement is kept for each of the splits below, the rest is `train`
#: By the remainder of an arrangement's hash. The base parts in recipes/tiny_base, which were made
#: before there was `validation`, have seen neither.
KEPT = {0: "test", 5: "validation"}


@dataclass(frozen=True, order=True)
class Combination:
    """What an object looks like."""

    color: str
    shape: str

    def __str__(self) -> str:
        return f"{self.color} {self.shape}"


HELD_OUT = (Combination("purple", "cross"), Combination("green", "triangle"))
ALL = tuple(Combination(color, shape) for color in COLORS for shape in SHAPES)
SEEN = tuple(combination for combination in ALL if combination not in HELD_OUT)


@dataclass(frozen=True, order=True)
class Thing:
    """An object and the corner it lies in."""

    cell: int
    look: Combination

    @property
    def color(self) -> str:
        return self.look.color

    @property
    def shape(self) -> str:
        return self.look.shape


Scene = tuple[Thing, ...]  # in reading order, row by row


@dataclass(frozen=True)
class World:
    """What may be shown in a split, and what its questions are about."""

    split: str

    @property
    def shown(self) -> Sequence[Combination]:
        return ALL if self.split == "heldout" else SEEN

    @property
    def asked(self) -> Sequence[Combination]:
        return HELD_OUT if self.split == "heldout" else SEEN

    def pick(
        self, rng: random.Random, wanted: Callable[[Combination], bool] = lambda look: True
    ) -> Combination:
        """A combination this split may show, among the wanted ones."""
        return rng.choice([look for look in self.shown if wanted(look)])

    def owns(self, scene: Scene) -> bool:
        """Whether an arrangement belongs to this split."""
        if self.split == "heldout":
            return any(thing.look in HELD_OUT for thing in scene)
        return KEPT.get(arrangement_hash(scene) % KEPT_SHARE, "train") == self.split


def arrangement_hash(scene: Scene) -> int:
    """A number that is the same in every process and for every seed."""
    text = ";".join(f"{thing.cell} {thing.look}" for thing in scene)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def place(rng: random.Random, looks: Sequence[Combination], first: int | None = None) -> Scene:
    """Put objects into different corners; the first one into corner `first` if that is given."""
    cells = rng.sample(range(len(CELLS)), len(CELLS))
    if first is not None:
        cells.remove(first)
        cells.insert(0, first)
    return tuple(sorted(Thing(cell, look) for cell, look in zip(cells, looks, strict=False)))


def caption(scene: Sequence[Thing]) -> str:
    """`red circle northwest, blue square southeast`: short, as every word costs a tiny model."""
    return ", ".join(f"{thing.look} {CELLS[thing.cell]}" for thing in scene)


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """The picture of a scene (RGB, SIDE x SIDE); position, size and paper vary a little."""
    from PIL import Image, ImageDraw

    scale = 4  # drawn larger and averaged down, for edges that are smooth at any position
    paper = tuple(rng.randint(236, 255) for _ in range(3))
    picture = Image.new("RGB", (SIDE * scale, SIDE * scale), paper)
    pen = ImageDraw.Draw(picture)
    for thing in scene:
        x = (16 + 32 * (thing.cell % 2) + rng.uniform(-2.5, 2.5)) * scale
        y = (16 + 32 * (thing.cell // 2) + rng.uniform(-2.5, 2.5)) * scale
        _draw_shape(pen, thing.shape, x, y, rng.uniform(11, 13) * scale, COLORS[thing.color])
    return picture.reduce(scale)


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, fill: tuple[int, int, int]
) -> None:
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        side = 0.88 * r
        pen.rectangle((x - side, y - side, x + side, y + side), fill=fill)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + 0.85 * r), (x + r, y + 0.85 * r)], fill=fill)
    else:
        arm = 0.3 * r
        pen.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
        pen.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
