"""What the layers make of prompts, against the model's own forward pass row by row."""

import copy

import pytest
import torch

from siqvl.generation.beginnings import WORTH, Prompt, after_pictures, beginnings
from siqvl.generation.decoder import Decoder
from siqvl.generation.loop import write
from siqvl.generation.reading import Reader


def pictures_of(model, count: int) -> torch.Tensor:
    size = model.config.vision_config.image_size
    torch.manual_seed(0)
    pixels = torch.randn(count, 3, size, size)
    with torch.no_grad():
        return model.get_image_features(pixels, return_dict=True).pooler_output


def prompts_of(model, kinds: list[tuple[tuple[int, ...], int]], *, share: bool) -> list[Prompt]:
    """Prompts of some pictures, and so many tokens after them."""
    image, tokens = model.config.image_token_id, model.config.tokens_per_image
    found = []
    for number, (pictures, length) in enumerate(kinds):
        ids = [5, 6]
        for _ in pictures:
            ids += [*[image] * tokens, 7]
        ids += [(11 * number + 3 * place) % 200 + 20 for place in range(length)]
        shared = after_pictures(ids, image) if share else 0
        found.append(Prompt(ids, pictures, shared))
    return found


def by_the_model(model, prompt: Prompt, tokens: torch.Tensor) -> torch.Tensor:
    """[tokens, hidden] of one prompt alone, through transformers' modules."""
    embeds = model.get_input_embeddings()(torch.tensor([prompt.ids]))
    if prompt.pictures:
        mask = torch.tensor([prompt.ids])[..., None] == model.config.image_token_id
        embeds = embeds.masked_scatter(mask, tokens[list(prompt.pictures)])
    with torch.no_grad():
        return model.model.language_model(inputs_embeds=embeds).last_hidden_state[0]


KINDS = [((0,), 9), ((0,), 4), ((1,), 12), ((0,), 7), ((1,), 3), ((2, 0), 5), ((2, 0), 9)]


@pytest.mark.parametrize("share", [False, True])
def test_states_are_those_of_the_model(asked, share: bool) -> None:
    model, _ = asked
    tokens = pictures_of(model, 3)
    prompts = prompts_of(model, KINDS, share=share)
    encoded = []

    def encode(names):
        encoded.extend(names)
        return tokens[list(names)]

    with torch.inference_mode():
        hidden, starts = Reader(model).states(prompts, encode)
        scores = Decoder(model, 9).read(prompts, encode, 2)
    for row, prompt in enumerate(prompts):
        expected = by_the_model(model, prompt, tokens)
        own = expected[starts[row] :]
        torch.testing.assert_close(hidden[row, : len(own)], own, atol=2e-5, rtol=1e-4)
        ends = model.lm_head(expected[-1:])[0].detach()
        torch.testing.assert_close(scores[row], ends, atol=1e-4, rtol=1e-4)
    if share:
        assert all(starts)
        assert encoded == [0, 1, 2, 0] * 2  # each beginning's pictures once
    else:
        assert not any(starts)


def test_beginnings_are_shared_where_that_saves_enough() -> None:
    alike = [Prompt([1, 2, 3, 4], ("a",), 3), Prompt([1, 2, 3, 9], ("a",), 3)]
    first, owners = beginnings(alike)
    assert (first, owners) == ([alike[0]], [0, 0])
    other_picture = [alike[0], Prompt([1, 2, 3, 9], ("b",), 3)]
    assert beginnings(other_picture) == ([], [])
    long = [Prompt([1, *range(100)], (), 1), Prompt([1, *range(100)], (), 1)]
    assert WORTH * 202 > 1, "one token of 202 is too little"
    assert beginnings(long) == ([], [])
    assert beginnings([*alike, Prompt([5, 6], (), 0)]) == ([], [])  # one that has none


def test_a_layer_with_a_window_sees_no_further(asked) -> None:
    """Qwen2's sliding windows: prompts and answers longer than the window."""
    model = copy.deepcopy(asked[0])
    text = model.config.text_config
    text.sliding_window, text.layer_types = 6, ["full_attention", "sliding_attention"] * 2
    model.model.language_model.has_sliding_layers = True
    for number, layer in enumerate(model.model.language_model.layers):
        layer.attention_type = layer.self_attn.layer_type = text.layer_types[number]
        layer.self_attn.sliding_window = 6 if number % 2 else None
    tokens = pictures_of(model, 3)
    prompts = prompts_of(model, KINDS, share=True)
    expected = []
    for prompt in prompts:
        ids = list(prompt.ids)
        for _ in range(12):
            states = by_the_model(model, prompt._replace(ids=ids), tokens)
            scores = model.lm_head(states[-1])
            scores[model.generation_config.suppress_tokens] = -torch.inf
            ids.append(int(scores.argmax()))
        expected.append(ids[len(prompt.ids) :])
    unlimited = dict(
        write(
            asked[0],
            prompts,
            lambda names: tokens[list(names)],
            places=3,
            max_new_tokens=12,
            end_ids=[],
        )
    )
    found = dict(
        write(
            model,
            prompts,
            lambda names: tokens[list(names)],
            places=3,
            max_new_tokens=12,
            end_ids=[],
        )
    )
    assert [found[row].ids for row in range(len(prompts))] == expected
    assert found != unlimited, "the window changes nothing: this shows nothing"


def test_bf16_writes_nearly_what_transformers_writes_in_bf16(asked) -> None:
    model = copy.deepcopy(asked[0]).bfloat16()
    prompts = prompts_of(model, [((), length) for length in range(3, 23)], share=False)
    found = dict(write(model, prompts, lambda names: names, places=7, max_new_tokens=8, end_ids=[]))
    alike = 0
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([list(prompt.ids)])
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=8,
            eos_token_id=-1,
        )
        alike += written[0, ids.shape[1] :].tolist() == found[row].ids
    assert alike >= 16, "more than rounding differs"  # of 20


def test_more_or_fewer_placeholders_than_image_tokens_are_refused(asked) -> None:
    model, _ = asked
    tokens = pictures_of(model, 3)
    image = model.config.image_token_id
    with pytest.raises(ValueError, match="Image features and image tokens do not match"):
        Decoder(model, 1).read([Prompt([5, image, 6], ())], lambda names: tokens, 0)
