"""Multi-step questions about the generated world, with the steps that lead to the answer.

The steps name the objects that count, in reading order, and keep a running tally, so that each step
needs only the picture and the step before it. They stay below 60 words.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from siqvl.data.schema import REASONING_PROMPT, reasoned_answer
from siqvl.data.shapes.scene_questions import Ask, Template
from siqvl.data.shapes.scenes import CELLS, COLORS, SHAPES, Combination, Scene, World, place

CORNERS = {"circle": 0, "triangle": 3, "square": 4}


class Reasoning(Template):
    """A question whose answer can be worked out, from a scene as it is seen."""

    def work_out(self, scene: Scene, ask: Ask) -> tuple[str, str]:
        """The written steps and the answer they lead to."""
        raise NotImplementedError


class CountOf(Reasoning):
    """`How many red objects are there?`, `How many circles are there?`"""

    name = "count"

    def ask(self, rng: random.Random, world: World) -> Ask:
        return self._ask(rng.choice((*COLORS, *SHAPES)), str(rng.randint(0, 3)))

    def scene(self, rng: random.Random, world: World, ask: Ask) -> Scene:
        wanted, count = is_a(ask.about[0]), int(ask.answer)
        total = rng.randint(max(count, 1), len(CELLS))
        looks = [world.pick(rng, wanted) for _ in range(count)]
        return place(rng, looks + rest(rng, world, total - count, *ask.about))

    def options(self, world: World, ask: Ask) -> list[str]:
        return ["0", "1", "2", "3"]

    def ask_about(self, rng: random.Random, world: World, scene: Scene) -> Ask | None:
        shown = [kind for thing in scene for kind in (thing.color, thing.shape)]
        kind = rng.choice(shown if rng.random() < 0.6 else [*COLORS, *SHAPES])
        return answered(self, world, scene, self._ask(kind))

    def _ask(self, kind: str, answer: str = "") -> Ask:
        return Ask(f"How many {plural(kind)} are there?", answer, (kind,))

    def work_out(self, scene: Scene, ask: Ask) -> tuple[str, str]:
        steps, tally = tally_of(scene, ask.about[0])
        return f"{steps}.", str(tally)


class Compare(Reasoning):
    """`Are there more circles than squares, fewer, or the same number?`"""

    name = "compare"
    answers = ("more", "fewer", "same")

    def ask(self, rng: random.Random, world: World) -> Ask:
        return replace(self._ask(rng), answer=rng.choice(self.answers))

    def _ask(self, rng: random.Random) -> Ask:
        first, second = rng.sample(rng.choice((tuple(COLORS), SHAPES)), 2)
        question = (
            f"Are there more {plural(first)} than {plural(second)}, fewer, or the same number?"
        )
        return Ask(question, "", (first, second))

    def scene(self, rng: random.Random, world: World, ask: Ask) -> Scene:
        if ask.answer == "same":
            counts = rng.choice(((0, 0), (1, 1), (1, 1), (2, 2)))
        else:
            counts = rng.choice(((1, 0), (2, 0), (2, 1), (3, 1)))
            counts = counts if ask.answer == "more" else counts[::-1]
        looks = [
            world.pick(rng, is_a(kind))
            for kind, count in zip(ask.about, counts, strict=True)
            for _ in range(count)
        ]
        total = rng.randint(max(len(looks), 1), len(CELLS))
        return place(rng, looks + rest(rng, world, total - len(looks), *ask.about))

    def options(self, world: World, ask: Ask) -> list[str]:
        return list(self.answers)

    def ask_about(self, rng: random.Random, world: World, scene: Scene) -> Ask | None:
        answer = rng.choice(self.answers)
        for _ in range(20):
            ask = answered(self, world, scene, self._ask(rng))
            if ask and ask.answer == answer:
                return ask
        return None

    def work_out(self, scene: Scene, ask: Ask) -> tuple[str, str]:
        (first, a), (second, b) = (tally_of(scene, kind) for kind in ask.about)
        sign, answer = (">", "more") if a > b else ("<", "fewer") if a < b else ("=", "same")
        return f"{first}; {second}. {a} {sign} {b}.", answer


#: Answers that are asked for, each with the corners of the objects that have any.
CORNER_SUMS = {3: (3,), 4: (4,), 6: (3, 3), 7: (3, 4), 8: (4, 4), 9: (3, 3, 3), 10: (3, 3, 4)}


class Corners(Reasoning):
    """`How many corners do the objects have together?`, of circles, triangles and squares."""

    name = "corners"

    def ask(self, rng: random.Random, world: World) -> Ask:
        question = "How many corners do the objects have together?"
        return Ask(question, str(rng.choice(list(CORNER_SUMS))))

    def scene(self, rng: random.Random, world: World, ask: Ask) -> Scene:
        corners = CORNER_SUMS[int(ask.answer)]
        total = rng.randint(len(corners), len(CELLS))
        each = [*corners, *[0] * (total - len(corners))]
        shapes = [{0: "circle", 3: "triangle", 4: "square"}[count] for count in each]
        return place(rng, [world.pick(rng, is_a(shape)) for shape in shapes])

    def options(self, world: World, ask: Ask) -> list[str]:
        return [str(total) for total in CORNER_SUMS]

    def ask_about(self, rng: random.Random, world: World, scene: Scene) -> Ask | None:
        if any(thing.shape not in CORNERS for thing in scene):
            return None
        ask = Ask("How many corners do the objects have together?", "")
        return answered(self, world, scene, ask)

    def work_out(self, scene: Scene, ask: Ask) -> tuple[str, str]:
        total, steps = 0, []
        for thing in scene:
            # a cross only turns up in a scene that was misread; it has twelve corners
            more = CORNERS.get(thing.shape, 12)
            steps.append(f"{thing.look}: {total} + {more} = {total + more}")
            total += more
        return "; ".join(steps) + ".", str(total)


REASONING: tuple[Reasoning, ...] = (CountOf(), Compare(), Corners())


def in_steps(template: Reasoning, scene: Scene, ask: Ask) -> tuple[str, str]:
    """The prompt that asks for written steps, and the completion that gives them."""
    return ask.question + REASONING_PROMPT, reasoned_answer(*template.work_out(scene, ask))


def tally_of(scene: Scene, kind: str) -> tuple[str, int]:
    """`red: red circle northwest 1, red cross southeast 2`, and 2; `red: none` and 0."""
    wanted = is_a(kind)
    found = [thing for thing in scene if wanted(thing.look)]
    steps = [f"{thing.look} {CELLS[thing.cell]} {tally}" for tally, thing in enumerate(found, 1)]
    return f"{kind}: {', '.join(steps) or 'none'}", len(found)


def answered(template: Reasoning, world: World, scene: Scene, ask: Ask) -> Ask | None:
    """The question with the answer that the scene gives it, if that is one it can have."""
    _, answer = template.work_out(scene, ask)
    return replace(ask, answer=answer) if answer in template.options(world, ask) else None


def plural(kind: str) -> str:
    """`red objects`, `circles`, `crosses`."""
    if kind in COLORS:
        return f"{kind} objects"
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def is_a(kind: str) -> Callable[[Combination], bool]:
    """Whether a combination has a colour or a shape."""
    return lambda look: kind in (look.color, look.shape)


def rest(rng: random.Random, world: World, count: int, *kinds: str) -> list[Combination]:
    """Objects that are none of the kinds a question is about."""

    def other(look: Combination) -> bool:
        return look.color not in kinds and look.shape not in kinds

    return [world.pick(rng, other) for _ in range(count)]
