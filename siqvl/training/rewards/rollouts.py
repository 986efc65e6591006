"""What the model in training writes to the questions of a step, by our own loop over tokens.

The completions of a step follow from the weights, the questions, the seed and the number of the
step: a run that goes on from a state writes the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from siqvl.data.encoded import EncodedDataset
from siqvl.device import Precision, autocast
from siqvl.generation.beginnings import Prompt
from siqvl.generation.loop import write
from siqvl.generation.sampling import drawn
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.recipe import RewardStage

#: Features of the frozen tower, [pictures, patches, hidden], by the item that shows the pictures.
Shown = Mapping[int, torch.Tensor]


def rollouts(
    model: SiQVLForConditionalGeneration,
    questions: EncodedDataset,
    items: Sequence[int],
    shown: Shown,
    stage: RewardStage,
    *,
    precision: Precision,
    end_ids: Sequence[int],
    seed: int,
    step: int,
) -> list[list[int]]:
    """Writes `stage.group_size` completions of every question.

    Args:
        items: the questions, by their numbers in `questions`; none stands twice.
        shown: the pictures of each; a question without a picture may be missing.
        step: of the optimizer, from 0; the same question is answered otherwise in another step.

    Returns:
        Tokens of each completion, with the end token if it came to one; a question's follow one
        another, in the order of `items`.
    """

    def encode(names: Sequence[Any]) -> torch.Tensor:
        features = torch.stack([shown[item][picture] for item, picture in names])
        found = model.model.project_vision_features(features).pooler_output
        assert found is not None
        return found

    ids = {item: questions.tokens(item)["input_ids"] for item in items}
    order = sorted(items, key=lambda item: len(ids[item]))
    token = model.config.image_token_id
    prompts = [
        Prompt.asked(ids[item], tuple((item, n) for n in range(questions.num_images[item])), token)
        for item in order
    ]
    choose = drawn(
        [f"{step}/{questions.row_id(item)}" for item in order],
        seed=seed,
        samples=stage.group_size,
        max_new_tokens=stage.max_new_tokens,
        temperature=stage.sampling_temperature,
    )
    written: dict[int, list[list[int]]] = {item: [[]] * stage.group_size for item in items}
    with autocast(model.device, precision):
        for number, one in write(
            model,
            prompts,
            encode,
            places=stage.places,
            max_new_tokens=stage.max_new_tokens,
            end_ids=end_ids,
            samples=stage.group_size,
            choose=choose,
        ):
            place, sample = divmod(number, stage.group_size)
            written[order[place]][sample] = one.ids
    return [completion for item in items for completion in written[item]]
