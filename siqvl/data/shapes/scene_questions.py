"""Questions about the generated world, with their answers and written steps.

The answer is chosen before the scene, evenly among those a question can have: whoever reads only
the question is right once in as many times as there are answers. (Not so in the split `heldout`,
where "what color is the cross?" has one answer; there, guessers that never saw it score zero.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from siqvl.data.shapes.scenes import CELLS, Combination, Scene, Thing, World, caption, place

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """A question, its answer, and what it is about."""

    question: str
    answer: str
    about: tuple[str, ...] = ()


class Template:
    """One kind of question."""

    name: str

    def ask(self, rng: random.Random, world: World) -> Ask:
        """Choose a question and, evenly, its answer."""
        raise NotImplementedError

    def scene(self, rng: random.Random, world: World, ask: Ask) -> Scene:
        """A random scene in which the answer holds."""
        raise NotImplementedError

    def options(self, world: World, ask: Ask) -> list[str]:
        """Every answer the question can have; empty when there are too many to list."""
        raise NotImplementedError

    def ask_about(self, rng: random.Random, world: World, scene: Scene) -> Ask | None:
        """A question that a given scene answers; None where it answers none without doubt."""
        raise NotImplementedError


class Caption(Template):
    """`Describe the picture.`"""

    name = "caption"

    def ask(self, rng: random.Random, world: World) -> Ask:
        return Ask("Describe the picture.", "")

    def scene(self, rng: random.Random, world: World, ask: Ask) -> Scene:
        return place(rng, rng.sample(world.shown, rng.randint(1, len(CELLS))))

    def options(self, world: World, ask: Ask) -> list[str]:
        return []

    def ask_about(self, rng: random.Random, world: World, scene: Scene) -> Ask | None:
        return Ask("Describe the picture.", caption(scene))


class LookOf(Template):
    """`What color is the circle?`, `What shape is the red object?`: half of a look, by the other.

    Args:
        name: what is asked for, `color` or `shape`.
        given: the other of the two.
        question: with a place for what is given.
    """

    def __init__(self, name: str, given: str, question: str) -> None:
        self.name = name
        self._given = given
        self._question = question

    def ask(self, rng: random.Random, world: World) -> Ask:
        given = rng.choice(sorted({getattr(look, self._given) for look in world.asked}))
        return self._ask(given, rng.choice(self._answers(world.asked, given)))

    def scene(self, rng: random.Random, world: World, ask: Ask) -> Scene:
        (given,) = ask.about
        target = Combination(**{self.name: ask.answer, self._given: given})
        other = world.pick(rng, lambda look: getattr(look, self._given) != given)
        return place(rng, [target, other][: rng.randint(1, 2)])

    def options(self, world: World, ask: Ask) -> list[str]:
        return self._answers(world.shown, ask.about[0])

    def ask_about(self, rng: random.Random, world: World, scene: Scene) -> Ask | None:
        single = only_once([getattr(thing.look, self._given) for thing in scene])
        if not single:
            return None
        given = rng.choice(single)
        return self._ask(given, self._answers([thing.look for thing in scene], given)[0])

    def _ask(self, given: str, answer: str) -> Ask:
        return Ask(self._question.format(given), answer, (given,))

    def _answers(self, looks: Sequence[Combination], given: str) -> list[str]:
        """What is asked for, of the looks that are as given."""
        return [getattr(look, self.name) for look in looks if getattr(look, self._given) == given]


class Where(Template):
    """`Where is the red circle?`"""

    name = "where"

    def ask(self, rng: random.Random, world: World) -> Ask:
        look = rng.choice(world.asked)
        return Ask(f"Where is the {look}?", rng.choice(CELLS), (look.color, look.shape))

    def scene(self, rng: random.Random, world: World, ask: Ask) -> Scene:
        target = Combination(*ask.about)
        looks = [target, world.pick(rng, lambda look: look != target)]
        return place(rng, looks[: rng.randint(1, 2)], first=CELLS.index(ask.answer))

    def options(self, world: World, ask: Ask) -> list[str]:
        return list(CELLS)

    def ask_about(self, rng: random.Random, world: World, scene: Scene) -> Ask | None:
        single = only_once([thing.look for thing in scene])
        if not single:
            return None
        look = rng.choice(single)
        cell = next(thing.cell for thing in scene if thing.look == look)
        return Ask(f"Where is the {look}?", CELLS[cell], (look.color, look.shape))


class Exists(Template):
    """`Is there a red circle?`; half of the wrong pictures show one of its two attributes."""

    name = "exists"

    def ask(self, rng: random.Random, world: World) -> Ask:
        look = rng.choice(world.asked)
        question = f"Is there a {look}?"
        return Ask(question, rng.choice(("yes", "no")), (look.color, look.shape))

    def scene(self, rng: random.Random, world: World, ask: Ask) -> Scene:
        target = Combination(*ask.about)

        def similar(look: Combination) -> bool:
            return look != target and (look.color == target.color or look.shape == target.shape)

        first = target
        if ask.answer == "no":
            alike = rng.random() < 0.5
            first = world.pick(rng, similar if alike else lambda look: look != target)
        other = world.pick(rng, lambda look: look != target)
        return place(rng, [first, other][: rng.randint(1, 2)])

    def options(self, world: World, ask: Ask) -> list[str]:
        return ["yes", "no"]

    def ask_about(self, rng: random.Random, world: World, scene: Scene) -> Ask | None:
        shown = [thing.look for thing in scene]
        look, answer = rng.choice(shown), "yes"
        if rng.random() < 0.5:
            seen, answer = look, "no"
            alike = rng.random() < 0.5
            absent = [
                other
                for other in world.asked
                if other not in shown
                and (not alike or other.color == seen.color or other.shape == seen.shape)
            ]
            look = rng.choice(absent)
        return Ask(f"Is there a {look}?", answer, (look.color, look.shape))


class HowMany(Template):
    """`How many objects are there?`"""

    name = "how_many"

    def ask(self, rng: random.Random, world: World) -> Ask:
        return Ask("How many objects are there?", str(rng.randint(1, len(CELLS))))

    def scene(self, rng: random.Random, world: World, ask: Ask) -> Scene:
        return place(rng, [world.pick(rng) for _ in range(int(ask.answer))])

    def options(self, world: World, ask: Ask) -> list[str]:
        return [str(count) for count in range(1, len(CELLS) + 1)]

    def ask_about(self, rng: random.Random, world: World, scene: Scene) -> Ask | None:
        return Ask("How many objects are there?", str(len(scene)))


def only_once(values: Sequence[T]) -> list[T]:
    """The values that occur a single time, in order."""
    return [value for value in values if values.count(value) == 1]


COLOR_OF = LookOf("color", "shape", "What color is the {}?")
SHAPE_OF = LookOf("shape", "color", "What shape is the {} object?")
VQA = (COLOR_OF, SHAPE_OF, Where(), Exists(), HowMany())


def find_scene(template: Template, world: World, rng: random.Random) -> tuple[Ask, Scene]:
    """A question and a scene of this split in which it has its answer.

    The answer stays while scenes of other splits are passed over, so that it stays balanced.
    """
    while True:
        ask = template.ask(rng, world)
        for _ in range(100):
            scene = template.scene(rng, world, ask)
            # "no" to a held-out combination needs a picture without it
            if world.owns(scene) or (world.split == "heldout" and ask.answer == "no"):
                if isinstance(template, Caption):
                    ask = Ask(ask.question, caption(scene))
                return ask, scene


def edited(rng: random.Random, world: World, scene: Scene) -> Scene:
    """The scene as a careless eye might see it: one object changed, missed, or too many."""
    things = list(scene)
    change = rng.choice(("look", "look", "missed", "extra"))
    free = [cell for cell in range(len(CELLS)) if cell not in {thing.cell for thing in things}]
    if change == "extra" and free:
        things.append(Thing(rng.choice(free), world.pick(rng)))
    elif change == "missed" and len(things) > 1:
        things.remove(rng.choice(things))
    else:
        old = things.pop(rng.randrange(len(things)))
        look = world.pick(rng, lambda look: (look.color == old.color) != (look.shape == old.shape))
        things.append(Thing(old.cell, look))
    return tuple(sorted(things))
