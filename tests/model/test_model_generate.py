"""generate: cached equals uncached, beams share one pass of the tower, batched equals single."""

import pytest
import torch

from tests.model.tiny_siqvl import batch_of, encode, picture


@pytest.fixture
def tower_batches(model) -> list[int]:
    """Images the tower encoded, one entry a call."""
    calls = []
    model.model.vision_tower.register_forward_hook(
        lambda module, args, out: calls.append(len(out.last_hidden_state))
    )
    return calls


def new_tokens(model, inputs, **options) -> torch.Tensor:
    out = model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None, **options)
    return out[:, inputs["input_ids"].shape[1] :]


def by_hand(model, inputs, steps: int = 8) -> torch.Tensor:
    """Greedy decoding from whole forward passes, without `generate` or a cache."""
    ids = inputs["input_ids"]
    for _ in range(steps):
        logits = model(input_ids=ids, pixel_values=inputs.get("pixel_values")).logits[:, -1]
        logits[:, model.config.image_token_id] = -torch.inf
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids[:, inputs["input_ids"].shape[1] :]


@torch.no_grad()
@pytest.mark.parametrize("images", [0, 1, 2])
def test_cached_equals_uncached_equals_by_hand(model, processor, tower_batches, images):
    inputs = encode(processor, "what?", [picture(seed) for seed in range(images)])
    cached = new_tokens(model, inputs)
    uncached = new_tokens(model, inputs, use_cache=False)
    assert tower_batches == ([images] * 2 if images else [])  # once each, not once a token
    assert torch.equal(cached, uncached)
    assert torch.equal(cached, by_hand(model, inputs))
    assert len(cached[0].unique()) > 2  # a model that repeats one token would prove nothing


@torch.no_grad()
def test_batched_equals_single(model, processor):
    rows = [("a", [picture(0)]), ("what is in the picture?", []), ("b c", [picture(1), picture(2)])]
    together = new_tokens(model, batch_of(processor, rows))
    for row, (question, images) in enumerate(rows):
        assert torch.equal(together[row], new_tokens(model, encode(processor, question, images))[0])


@torch.no_grad()
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_return_sequences": 2, "num_beams": 2}])
def test_beams_encode_each_image_once(model, processor, tower_batches, options):
    rows = [("a", [picture(0)]), ("text", []), ("b c", [picture(1), picture(2)])]
    out = new_tokens(model, batch_of(processor, rows), **options)
    assert tower_batches == [3]
    copies = options.get("num_return_sequences", 1)
    for row, (question, images) in enumerate(rows):
        single = new_tokens(model, encode(processor, question, images), **options)
        assert torch.equal(out[row * copies : (row + 1) * copies], single)


@torch.no_grad()
def test_one_beam_each_of_identical_sequences_is_greedy(model, processor):
    inputs = encode(processor, "what?", [picture(0), picture(1)])
    torch.manual_seed(0)
    sampled = model.generate(
        **inputs, max_new_tokens=6, do_sample=True, top_k=1, num_return_sequences=3
    )
    greedy = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(sampled, greedy.expand(3, -1))


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 2])
def test_precomputed_features_generate_the_same(model, processor, tower_batches, beams):
    inputs = encode(processor, "what?", [picture(0), picture(1)])
    reference = new_tokens(model, inputs, num_beams=beams)
    features = model.model.get_vision_features(inputs.pop("pixel_values"))
    tower_batches.clear()
    out = new_tokens(model, {**inputs, "vision_features": features}, num_beams=beams)
    assert torch.equal(out, reference)
    assert tower_batches == []


@torch.no_grad()
def test_a_static_cache_generates_the_same(model, processor):
    inputs = encode(processor, "what?", [picture(0)])
    static = new_tokens(model, inputs, cache_implementation="static", disable_compile=True)
    assert torch.equal(static, new_tokens(model, inputs))


@torch.no_grad()
def test_embeddings_generate_the_same(model, processor):
    inputs = encode(processor, "what?", [picture(0)])
    expected = new_tokens(model, inputs)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    asked = {"pixel_values": inputs["pixel_values"], "inputs_embeds": embeds}
    out = model.generate(**asked, max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert torch.equal(out, expected)


@torch.no_grad()
def test_generation_continues_from_a_cache(model, processor):
    inputs = encode(processor, "what?", [picture(0)])
    whole = model.generate(**inputs, max_new_tokens=6, eos_token_id=None)
    half = model.generate(
        **inputs, max_new_tokens=3, eos_token_id=None, return_dict_in_generate=True
    )
    mask = torch.ones_like(half.sequences)
    rest = model.generate(
        input_ids=half.sequences,
        attention_mask=mask,
        past_key_values=half.past_key_values,
        max_new_tokens=3,
        eos_token_id=None,
    )
    assert torch.equal(rest, whole)


@torch.no_grad()
def test_a_forced_placeholder_in_the_answer_is_just_a_token(model, processor):
    """Decoding steps must not mistake a drawn `<|image_pad|>` for an image without features."""
    inputs = encode(processor, "what?", [picture(0)])
    state = model(**inputs, use_cache=True)
    step = torch.tensor([[model.config.image_token_id]])
    assert model(input_ids=step, past_key_values=state.past_key_values).logits.shape[1] == 1


@torch.no_grad()
def test_an_image_placeholder_is_never_drawn(model, processor):
    inputs = encode(processor, "what?", [picture(0)])
    out = model.generate(
        **inputs,
        max_new_tokens=2,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    for scores in out.scores:
        assert scores[0, model.config.image_token_id] == -torch.inf


@torch.no_grad()
def test_prefill_in_chunks(model, processor):
    inputs = encode(processor, "what is in the picture?", [picture(0), picture(1)])
    chunked = new_tokens(model, inputs, prefill_chunk_size=16)
    assert torch.equal(chunked, new_tokens(model, inputs))


@torch.no_grad()
def test_generate_without_pixels_for_a_placeholder_is_an_error(model, processor):
    inputs = encode(processor, "what?", [picture(0)])
    inputs.pop("pixel_values")
    with pytest.raises(ValueError, match="tokens: 4, features: 0"):
        model.generate(**inputs, max_new_tokens=2)


@torch.no_grad()
def test_no_pixels_may_be_said_as_in_a_forward_pass(model, processor):
    inputs = encode(processor, "what?")
    assert torch.equal(
        new_tokens(model, {**inputs, "pixel_values": None}), new_tokens(model, inputs)
    )
