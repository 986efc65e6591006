"""Text about the generated world, for a language model that has not seen a picture yet.

The picture is given in words (`Picture: a red circle at the top left.`), the rest of a row is what
the training stages will ask about real pictures. The order of objects in the words is shuffled, so
that the model learns to look them up rather than to copy in place.
"""

from __future__ import annotations

import random

from siqvl.data.schema import REASONING_PROMPT, Row, reasoned_answer, sft_row
from siqvl.data.shapes.questions import VQA, Caption, find_scene
from siqvl.data.shapes.reasoning import REASONING, Reasoning
from siqvl.data.shapes.scenes import Scene, World, caption

#: Share of each kind of row. Half of the multi-step questions get written steps.
KINDS = {"caption": 0.25, "vqa": 0.4, "reasoning": 0.25, "reasoning_direct": 0.1}


def text_row(index: int, seed: int) -> Row:
    """Row `index` of the corpus; scenes of the train split only."""
    rng = random.Random(f"siqvl bootstrap text/{seed}/{index}")
    kind = rng.choices(list(KINDS), weights=list(KINDS.values()))[0]
    world = World("train")
    template = {"caption": Caption(), "vqa": rng.choice(VQA)}.get(kind) or rng.choice(REASONING)
    ask, scene = find_scene(template, world, rng)
    question, completion = ask.question, ask.answer
    if kind == "reasoning":
        assert isinstance(template, Reasoning)
        question += REASONING_PROMPT
        completion = reasoned_answer(*template.work_out(scene, ask))
    prompt = f"Picture: {_shuffled(scene, rng)}.\n{question}"
    return sft_row(f"text/{seed}-{index}", [], prompt, completion, source="bootstrap/text")


def _shuffled(scene: Scene, rng: random.Random) -> str:
    return caption(tuple(rng.sample(scene, len(scene))))
