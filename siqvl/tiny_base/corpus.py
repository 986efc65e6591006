"""Text about the generated world, for a language model that has not seen a picture yet.

The picture is given in words (`Picture: red circle northwest.`), followed by several
questions of the kinds that the training stages ask about real pictures. The order of objects in the
words is shuffled, so that the model learns to look them up rather than to copy in place.
"""

from __future__ import annotations

import random

from siqvl.data.schema import Message, Row, message, sft_row
from siqvl.data.shapes.reasoning import REASONING, Reasoning, in_steps
from siqvl.data.shapes.scene_questions import VQA, Caption
from siqvl.data.shapes.scenes import CELLS, World, caption, place

#: Share of each kind of question; `reasoning` is answered after written steps. As Qwen2.5 does, the
#: tiny model knows from text what the training stages then ask of it about pictures.
KINDS = {"caption": 0.15, "vqa": 0.45, "reasoning_direct": 0.1, "reasoning": 0.3}
QUESTIONS = 3  # about a picture


def text_row(index: int, seed: int, *, questions: int = QUESTIONS) -> Row:
    """Row `index` of the corpus: a scene of the train split in words, and questions about it."""
    rng = random.Random(f"siqvl bootstrap text/{seed}/{index}")
    world = World("train")
    while True:
        scene = place(rng, [world.pick(rng) for _ in range(rng.randint(1, len(CELLS)))])
        if world.owns(scene):
            break
    turns: list[Message] = []
    asked: set[str] = set()
    while len(turns) < 2 * questions:
        kind = rng.choices(list(KINDS), weights=list(KINDS.values()))[0]
        template = {"caption": Caption(), "vqa": rng.choice(VQA)}.get(kind) or rng.choice(REASONING)
        ask = template.ask_about(rng, world, scene)
        if ask and ask.question not in asked:
            asked.add(ask.question)
            question, answer = ask.question, ask.answer
            if kind == "reasoning" and isinstance(template, Reasoning):
                question, answer = in_steps(template, scene, ask)
            turns += [message("user", question), message("assistant", answer)]
    words = caption(rng.sample(scene, len(scene)))
    turns[0] = message("user", f"Picture: {words}.\n{turns[0]['content']}")
    return sft_row(
        f"text/{seed}-{index}",
        [],
        turns[:-1],
        turns[-1:],
        source="bootstrap/text",
        type=template.name + (", in steps" if kind == "reasoning" else ""),
    )
