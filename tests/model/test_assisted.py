"""A SiQ-VL drafts tokens for another (assisted decoding): the answer is the other's own."""

import pytest
import torch
from transformers import Qwen2ForCausalLM

from siqvl.model import SiQVLForConditionalGeneration
from tests.model.tiny_siqvl import encode, picture, tiny_config, widen


def made(seed: int, **text) -> SiQVLForConditionalGeneration:
    torch.manual_seed(seed)
    model = SiQVLForConditionalGeneration(tiny_config(text=text)).eval()
    widen(model)
    return model


@pytest.fixture
def draft(model) -> SiQVLForConditionalGeneration:
    """A smaller one that reads the tower of the fixture `model`."""
    small = made(
        3, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    small.config.image_token_id = model.config.image_token_id
    small.model.config.image_token_id = model.config.image_token_id
    small.model.vision_tower.load_state_dict(model.model.vision_tower.state_dict())
    return small


def written(model, inputs, **options) -> torch.Tensor:
    return model.generate(
        **inputs, max_new_tokens=12, do_sample=False, eos_token_id=None, **options
    )


@torch.no_grad()
@pytest.mark.parametrize("images", [0, 1, 2])
def test_the_answer_is_that_of_greedy_search(model, processor, draft, images):
    inputs = encode(processor, "what?", [picture(seed) for seed in range(images)])
    assert torch.equal(written(model, inputs, assistant_model=draft), written(model, inputs))


@torch.no_grad()
def test_a_draft_sees_the_pictures(model, processor, draft):
    """It reads what it would read asked itself: its own projection of the tower's features."""
    inputs = encode(processor, "what?", [picture(0), picture(1)])
    asked = draft(**inputs).image_hidden_states
    seen = []
    draft.model.register_forward_hook(
        lambda module, args, out: seen.append(out.image_hidden_states), always_call=False
    )
    written(model, inputs, assistant_model=draft)
    first, *later = seen
    torch.testing.assert_close(first, asked, atol=1e-6, rtol=1e-6)
    assert later
    assert all(one is None for one in later)


@torch.no_grad()
def test_an_equal_draft_is_always_right(model, processor):
    """One pass of the large model verifies a whole draft only if both read the same picture."""
    twin = SiQVLForConditionalGeneration(model.config).eval()
    twin.load_state_dict(model.state_dict())
    twin.generation_config = model.generation_config
    twin.generation_config.num_assistant_tokens = 5
    twin.generation_config.assistant_confidence_threshold = 0.0
    passes = []
    model.register_forward_hook(lambda module, args, out: passes.append(out.logits.shape[1]))
    inputs = encode(processor, "what?", [picture(0)])
    out = model.generate(
        **inputs, max_new_tokens=12, do_sample=False, eos_token_id=None, assistant_model=twin
    )
    assert len(passes) <= 3, passes  # 5 drafted + 1, twice over
    assert torch.equal(out, written(model, inputs))


@torch.no_grad()
def test_a_draft_with_another_tower_lets_placeholders_through(model, processor):
    other = SiQVLForConditionalGeneration(
        tiny_config(vision={"hidden_size": 24}, image_token_id=model.config.image_token_id)
    ).eval()
    inputs = encode(processor, "what?", [picture(0)])
    assert torch.equal(written(model, inputs, assistant_model=other), written(model, inputs))


@torch.no_grad()
def test_a_draft_of_text_alone(parts, model, processor):
    text = Qwen2ForCausalLM.from_pretrained(parts[1]).eval()
    inputs = encode(processor, "what?", [picture(0)])
    assert torch.equal(written(model, inputs, assistant_model=text), written(model, inputs))


@torch.no_grad()
def test_a_draft_for_a_model_of_text_alone(parts, processor, draft):
    """Its prompt may hold a placeholder, which is a token as any other to that model."""
    text = Qwen2ForCausalLM.from_pretrained(parts[1]).eval()
    inputs = encode(processor, "what?")
    inputs["input_ids"][0, -3] = draft.config.image_token_id
    assert torch.equal(written(text, inputs, assistant_model=draft), written(text, inputs))


@torch.no_grad()
@pytest.mark.parametrize("images", [0, 1, 2])
def test_a_placeholder_that_is_drafted_ends_nothing(model, processor, draft, images):
    """Drafts are what a model may say; here one says `<|image_pad|>` each time."""
    model.generation_config.suppress_tokens = None
    draft.generation_config.suppress_tokens = None

    def only_placeholders(module, args, out):
        out.logits[..., model.config.image_token_id] = 1e9
        return out

    inputs = encode(processor, "what?", [picture(seed) for seed in range(images)])
    expected = written(model, inputs)
    draft.register_forward_hook(only_placeholders)
    assert torch.equal(written(model, inputs, assistant_model=draft), expected)


@torch.no_grad()
def test_counts_that_differ_still_raise(model, processor, draft):
    inputs = encode(processor, "what?", [picture(0), picture(1)])
    inputs["pixel_values"] = inputs["pixel_values"][:1]
    with pytest.raises(ValueError, match="tokens: 8, features: 4"):
        written(model, inputs, assistant_model=draft)
    with pytest.raises(ValueError, match="tokens: 8, features: 4"):
        model(**inputs)
