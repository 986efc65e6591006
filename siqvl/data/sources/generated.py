"""The generated world of `siqvl.data.shapes` as a source; `subsets` are its families of questions.

`captions`, `vqa` (one look answers), `reasoning` (multi-step, answered after written steps) and
`reasoning_direct` (the same questions and scenes as `reasoning`, answered at once).
"""

from __future__ import annotations

import random
from functools import partial
from itertools import count
from typing import Any

from siqvl.data.schema import Row, RowKind, evaluation_row, preference_row, reasoned_answer, sft_row
from siqvl.data.shapes.reasoning import REASONING, Reasoning, in_steps
from siqvl.data.shapes.scene_questions import VQA, Ask, Caption, Template, edited, find_scene
from siqvl.data.shapes.scenes import SPLITS, Scene, World, caption, draw
from siqvl.data.sources.base import Stream, label, require_split, require_subsets
from siqvl.errors import UserError
from siqvl.recipe import Source

FAMILIES: dict[str, tuple[Template, ...]] = {
    "captions": (Caption(),),
    "vqa": VQA,
    "reasoning": REASONING,
    "reasoning_direct": REASONING,
}


class Shapes:
    """Adapter `shapes`."""

    kinds = frozenset(RowKind)

    def check(self, source: Source, kind: RowKind) -> None:
        require_split(source, SPLITS)
        require_subsets(source, list(FAMILIES))
        if source.path is not None:
            raise UserError(f"{label(source)} is generated: leave out `path`")
        if source.max_samples is None:
            raise UserError(f"{label(source)} has no end: say how many rows in `max_samples`")

    def rows(self, source: Source, kind: RowKind, seed: int) -> Stream:
        """Families take turns; scene i of a family is the same however many rows are taken."""
        return self._stream(source, kind, seed, drawn=True)

    def questions(self, source: Source, seed: int) -> Stream:
        """Evaluation rows without their pictures, whose drawing takes most of the time."""
        return self._stream(source, RowKind.EVALUATION, seed, drawn=False)

    def _stream(self, source: Source, kind: RowKind, seed: int, *, drawn: bool) -> Stream:
        families = source.subsets or list(FAMILIES)

        both_ways = {"reasoning", "reasoning_direct"} <= set(families)

        def draw_scene(number: int) -> Row:
            family, index = families[number % len(families)], number // len(families)
            row = shapes_row(kind, family, source.split, seed, index, drawn=drawn)
            if both_ways and family == "reasoning_direct":
                row["id"] = f"{row['id']}/direct"  # ids are given once in a source
            return row

        unread = (partial(draw_scene, number) for number in count())
        return Stream(unread, size=lambda: source.skip + (source.max_samples or 0))


def shapes_row(
    kind: RowKind, family: str, split: str, seed: int, index: int, *, drawn: bool = True
) -> Row:
    """Row `index` of a family and split; nothing else decides what is in it."""
    # reasoning and reasoning_direct share a stream: the same questions about the same scenes
    stream = "reasoning" if family == "reasoning_direct" else family
    rng = random.Random(f"siqvl shapes/{seed}/{split}/{stream}/{index}")
    world = World(split)
    template = FAMILIES[family][index % len(FAMILIES[family])]
    ask, scene = find_scene(template, world, rng)
    images = [draw(scene, rng) if drawn else None]
    row_id = f"shapes/{split}/{family}/{seed}-{index:06d}"
    about: dict[str, Any] = {"family": family, "template": template.name}
    about["source"] = f"shapes/{family}"
    if kind is RowKind.EVALUATION:
        # every answer that looks possible, also those of combinations that are never shown
        about["choices"] = template.options(World("heldout"), ask)
        about |= {"benchmark": f"shapes/{family}", "split": split}
        # of the same id however it is to be answered, so that two ways can be compared in pairs
        row_id = f"shapes/{split}/{stream}/{seed}-{index:06d}"
        return evaluation_row(row_id, images, ask.question, [ask.answer], **about)
    reasoned = family == "reasoning"
    prompt, right = ask.question, ask.answer
    if reasoned and isinstance(template, Reasoning):
        prompt, right = in_steps(template, scene, ask)
    if kind is RowKind.SFT:
        return sft_row(row_id, images, prompt, right, answer=ask.answer, **about)
    wrong, wrong_answer = _wrong(template, world, rng, scene, ask, reasoned)
    return preference_row(
        row_id, images, prompt, right, wrong, answer=ask.answer, wrong_answer=wrong_answer, **about
    )


def _wrong(
    template: Template, world: World, rng: random.Random, scene: Scene, ask: Ask, reasoned: bool
) -> tuple[str, str]:
    """A plausible wrong completion and its answer.

    Captions and reasoning are those of a misread scene: the steps follow from one another and only
    the picture contradicts them. Other answers are drawn evenly from the wrong ones.
    """
    if isinstance(template, Caption):
        other = scene
        while other == scene:
            other = edited(rng, world, scene)
        return caption(other), caption(other)
    options = [option for option in template.options(world, ask) if option != ask.answer]
    if not (reasoned and isinstance(template, Reasoning)):
        answer = rng.choice(options)
        return answer, answer
    for attempt in count(1):
        other = edited(rng, world, scene)
        steps, answer = template.work_out(other, ask)
        if answer in options:
            return reasoned_answer(steps, answer), answer
        if attempt % 20 == 0:  # no single mistake changes this answer: make two
            scene = other
    raise AssertionError  # not reached: count() does not end
