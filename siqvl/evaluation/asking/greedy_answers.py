"""Method `generation`: what the model writes, greedily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from siqvl.data.collate import padded
from siqvl.data.encode import encode_prompt
from siqvl.data.encoded import Encoded
from siqvl.data.schema import Row
from siqvl.evaluation.asking.prompts import Output, Prompt, image_inputs
from siqvl.evaluation.letters import lettered
from siqvl.recipe import Benchmark

if TYPE_CHECKING:
    import torch

    from siqvl.evaluation.asking.encoded_pictures import EncodedPictures
    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor

#: Rows that have ended are taken out of a batch when they are this share of it.
DROPPED = 0.25


def question_of(row: Row, benchmark: Benchmark) -> str:
    """The question as the benchmark asks it, but for its suffix."""
    return lettered(row["question"], row["choices"]) if benchmark.letters else row["question"]


@dataclass(frozen=True)
class Generation:
    """Greedy answers, in batches, with the KV cache."""

    model: SiQVLForConditionalGeneration
    processor: SiQVLProcessor
    benchmark: Benchmark

    def text(self, row: Row) -> str:
        return question_of(row, self.benchmark)

    def words(self, row: Row, images: int) -> tuple[Encoded, ...]:
        asked = {**row, "question": self.text(row), "images": [None] * images}
        return (encode_prompt(asked, self.processor, suffix=self.benchmark.prompt_suffix),)

    def answer(self, prompts: Sequence[Prompt], pictures: EncodedPictures) -> list[Output]:
        tokenizer = self.processor.tokenizer
        ids = [prompt.words[0].input_ids for prompt in prompts]
        written = greedy(
            self.model,
            padded(ids, tokenizer.pad_token_id, left=True),
            padded([[1] * len(row) for row in ids], 0, left=True),
            max_new_tokens=self.benchmark.max_new_tokens,
            **image_inputs(prompts, pictures),
        )
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        return [Output(text.strip()) for text in texts]


def greedy(
    model: SiQVLForConditionalGeneration,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    max_new_tokens: int,
    **images: Any,
) -> list[list[int]]:
    """The likeliest token after the other until an end token, as `model.generate` has it.

    It is told apart from `generate` by what it costs: rows that have ended leave the batch, and
    nothing is done between two steps but choosing the token.

    Args:
        input_ids, attention_mask: [batch, sequence], padded on the left.
        images: the model's argument for them.

    Returns:
        The tokens written for each row, its end token included if it came to one.
    """
    import torch

    settings = model.generation_config
    ends = set(_ids(settings.eos_token_id))
    suppressed = _ids(settings.suppress_tokens)
    written: list[list[int]] = [[] for _ in input_ids]
    rows = list(range(len(written)))  # of the batch as it is now
    mask = attention_mask.to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    inputs: dict[str, Any] = {"input_ids": input_ids.to(model.device), **images}
    cache = None
    with torch.inference_mode():
        for _ in range(max_new_tokens):
            output = model(
                **inputs,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1].float()
            logits[:, suppressed] = float("-inf")
            tokens = logits.argmax(-1)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if not _ended(written[row], ends):
                    written[row].append(token)
            going = [place for place, row in enumerate(rows) if not _ended(written[row], ends)]
            if not going:
                break
            cache, mask, positions = output.past_key_values, mask, positions[:, -1:] + 1
            if len(going) <= (1 - DROPPED) * len(rows):
                kept = torch.tensor(going, device=model.device)
                cache.batch_select_indices(kept)
                tokens, mask, positions = tokens[kept], mask[kept], positions[kept]
                rows = [rows[place] for place in going]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            inputs = {"input_ids": tokens[:, None]}
    return written


def _ended(written: list[int], ends: set[int]) -> bool:
    return bool(written) and written[-1] in ends


def _ids(setting: int | list[int] | None) -> list[int]:
    if setting is None:
        return []
    return setting if isinstance(setting, list) else [setting]
