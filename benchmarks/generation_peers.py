"""Our loop beside those of transformers, on the model `50m` of random weights, in fp32.

Answers are 1 to 200 tokens long. Random weights come to no end token, so each prompt has a limit of
its own, drawn evenly, which all sides keep to: in `generate` by a stopping criterion, where a row
that has ended waits for its batch.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.training.parts import make_parts
from siqvl.generation.beginnings import Prompt
from siqvl.generation.loop import write
from siqvl.text_table import text_table

LONGEST = 200


def compare(prompts: int, places: int, sizes: tuple[int, ...], repeats: int) -> str:
    """A table: tokens a second of each side, and how many answers differ from ours.

    Args:
        places: completions at once of ours, and of `generate_batch`.
        sizes: of batches of `generate`; its best stands in the ratio.
    """
    model, pixels, asked = _work(prompts)
    limits = _limits(prompts)
    with torch.inference_mode():
        tokens = model.get_image_features(pixels, return_dict=True).pooler_output
    text_only = [[one for one in ids if one != model.config.image_token_id] for ids in asked]
    sides: dict[str, Callable[[], list[list[int]]]] = {
        "ours": lambda: ours(model, asked, tokens, limits, places)
    }
    for size in sizes:
        sides[f"generate, batch {size}"] = _generate(model, asked, tokens, limits, size)
    sides["ours, text only"] = lambda: ours(model, text_only, None, limits, places)
    sides["generate_batch, text only"] = _generate_batch(model, text_only, limits)
    seconds: dict[str, list[float]] = {}
    written: dict[str, list[list[int]]] = {}
    for _ in range(repeats):
        for name, work in sides.items():
            start = time.perf_counter()
            written[name] = work()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    total, lines = sum(limits), [("side", "s", "tokens/s", "ours x", "answers that differ")]
    for name, each in seconds.items():
        base = "ours, text only" if name.endswith("text only") else "ours"
        ratios = [one / own for one, own in zip(each, seconds[base], strict=True)]
        differ = sum(a != b for a, b in zip(written[name], written[base], strict=True))
        median = statistics.median(each)
        ratio = statistics.median(ratios)
        lines.append((name, f"{median:.1f}", f"{total / median:,.0f}", f"{ratio:.2f}", f"{differ}"))
    return "\n".join(text_table(lines, left=(0,)))


def _work(prompts: int) -> tuple[Any, torch.Tensor, list[list[int]]]:
    """The model, pixels of a picture a prompt, and the prompts' tokens."""
    from siqvl.model.assemble import assemble

    with tempfile.TemporaryDirectory() as folder:
        make_parts("50m", Path(folder) / "parts")
        torch.manual_seed(0)
        model, _ = assemble(
            str(Path(folder) / "parts" / "vision"),
            str(Path(folder) / "parts" / "language"),
            max_image_tokens=64,
            attn_implementation="sdpa",
            init="config",
        )
    image, drawn = model.config.image_token_id, random.Random(0)
    asked = []
    for _ in range(prompts):
        words = [drawn.randrange(1_000, 100_000) for _ in range(drawn.randint(8, 40))]
        asked.append([*words[:4], *[image] * model.config.tokens_per_image, *words[4:]])
    side = model.config.vision_config.image_size
    pixels = torch.randn(prompts, 3, side, side, generator=torch.Generator().manual_seed(0))
    return model.float().eval(), pixels, asked


def _limits(prompts: int) -> list[int]:
    drawn = random.Random(1)
    return [drawn.randint(1, LONGEST) for _ in range(prompts)]


def ours(
    model: Any,
    asked: list[list[int]],
    tokens: torch.Tensor | None,
    limits: list[int],
    places: int,
) -> list[list[int]]:
    """What our loop writes, prompts of like length one after the other."""
    image = model.config.image_token_id
    order = sorted(range(len(asked)), key=lambda number: len(asked[number]))
    prompts = []
    for number in order:
        names = () if tokens is None else (number,)
        prompts.append(Prompt.asked(asked[number], names, image))
    found = dict(
        write(
            model,
            prompts,
            lambda names: tokens[list(names)],  # type: ignore[index,call-overload]
            places=places,
            max_new_tokens=[limits[number] for number in order],
            end_ids=[],
        )
    )
    written = {number: found[place].ids for place, number in enumerate(order)}
    return [written[number] for number in range(len(asked))]


def _generate(
    model: Any, asked: list[list[int]], tokens: torch.Tensor, limits: list[int], size: int
) -> Callable[[], list[list[int]]]:
    """`generate` over batches of like length, padded on the left as it asks for."""
    from transformers import StoppingCriteria, StoppingCriteriaList
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    class Limits(StoppingCriteria):
        def __init__(self, prompt: int, of_rows: list[int]) -> None:
            self.ends = torch.tensor(of_rows) + prompt

        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return input_ids.shape[1] >= self.ends

    def work() -> list[list[int]]:
        order = sorted(range(len(asked)), key=lambda number: len(asked[number]))
        written = {}
        for start in range(0, len(order), size):
            some = order[start : start + size]
            width = max(len(asked[number]) for number in some)
            ids = torch.tensor([[0] * (width - len(asked[n])) + asked[n] for n in some])
            mask = torch.tensor([[0] * (width - len(asked[n])) + [1] * len(asked[n]) for n in some])
            own = [limits[number] for number in some]
            found = model.generate(
                input_ids=ids,
                attention_mask=mask,
                mm_encoder_outputs={
                    "image": BaseModelOutputWithPooling(pooler_output=tokens[some])
                },
                do_sample=False,
                max_new_tokens=max(own),
                eos_token_id=-1,
                pad_token_id=0,
                stopping_criteria=StoppingCriteriaList([Limits(width, own)]),
            )
            for row, number in enumerate(some):
                written[number] = found[row, width : width + limits[number]].tolist()
        return [written[number] for number in range(len(asked))]

    return work


def _generate_batch(
    model: Any, asked: list[list[int]], limits: list[int]
) -> Callable[[], list[list[int]]]:
    """transformers' continuous batching of the language model, which takes no pictures."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    language = AutoModelForCausalLM.from_config(model.config.text_config).eval()
    language.model = model.model.language_model
    language.lm_head = model.lm_head
    config = GenerationConfig(
        do_sample=False,
        eos_token_id=-1,
        pad_token_id=0,
        max_new_tokens=LONGEST,
        suppress_tokens=model.generation_config.suppress_tokens,
    )

    def work() -> list[list[int]]:
        with language.continuous_batching_context_manager(
            generation_config=config, block=True, timeout=5
        ) as manager:
            names = [
                manager.add_request(ids, max_new_tokens=limit)
                for ids, limit in zip(asked, limits, strict=True)
            ]
            found: dict[str, list[int]] = {}
            for result in manager:
                if result.is_finished():
                    found[result.request_id] = result.generated_tokens
                    if len(found) == len(names):
                        break
        return [found[name] for name in names]

    return work
