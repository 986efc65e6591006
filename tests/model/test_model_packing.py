"""Packed rows: samples share a row and must not see each other, neither text nor images."""

import pytest
import torch

from tests.model.tiny_siqvl import encode, picture


def sample(processor, question, seeds) -> dict:
    return encode(processor, question, [picture(seed) for seed in seeds], answer="a red square")


def pack(samples) -> dict:
    """One row without an attention mask; positions restart at each sample."""
    pixels = [s["pixel_values"] for s in samples if "pixel_values" in s]
    return dict(
        input_ids=torch.cat([s["input_ids"] for s in samples], dim=1),
        position_ids=torch.cat([torch.arange(s["input_ids"].shape[1]) for s in samples])[None],
        pixel_values=torch.cat(pixels) if pixels else None,
    )


@pytest.fixture
def samples(processor):
    return [
        sample(processor, "what?", [0]),
        sample(processor, "text alone", []),
        sample(processor, "two pictures here", [1, 2]),
    ]


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("training", [True, False])
def test_packed_equals_separate(model, samples, attention, training):
    model.set_attn_implementation(attention)
    model.train(training)
    packed = model(**pack(samples)).logits[0]
    separate = torch.cat([model(**s).logits[0] for s in samples])
    assert (packed - separate).abs().max() <= 1e-5


@torch.no_grad()
def test_a_sample_never_changes_its_neighbour(model, processor, samples):
    first = samples[0]["input_ids"].shape[1]
    reference = model(**pack(samples)).logits[0, first:]
    other_picture = [sample(processor, "what?", [7]), *samples[1:]]
    assert torch.equal(model(**pack(other_picture)).logits[0, first:], reference)
    other_text = [{**samples[0], "input_ids": samples[0]["input_ids"].clone()}, *samples[1:]]
    other_text[0]["input_ids"][0, -3] = 5
    assert torch.equal(model(**pack(other_text)).logits[0, first:], reference)


def test_no_gradient_crosses_samples(model, samples):
    inputs = pack(samples)
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
    first = samples[0]["input_ids"].shape[1]
    logits = model(**{**inputs, "input_ids": None}, inputs_embeds=embeds).logits
    logits[0, first:].sum().backward()
    assert not embeds.grad[0, :first].any()
    assert embeds.grad[0, first:].abs().sum() > 0


@torch.no_grad()
def test_without_the_rule_samples_do_leak(model, samples):
    """The trap itself, so that the guards below are known to guard something."""
    inputs = pack(samples)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    leaking = model.eval()(**inputs).logits[0]
    separate = torch.cat([model(**s).logits[0] for s in samples])
    assert (leaking - separate).abs().max() > 1e-3


def test_a_mask_over_packed_rows_is_refused_in_training(model, samples):
    inputs = pack(samples)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with pytest.raises(ValueError, match=r"attention_mask=None, got a mask of shape \[1, \d+\]"):
        model.train()(**inputs)


def test_a_cache_over_packed_rows_is_refused(model, samples):
    with pytest.raises(ValueError, match="need use_cache=False"):
        model(**pack(samples), use_cache=True)


@torch.no_grad()
def test_several_packed_rows_are_refused_where_flash_attention_would_leak(
    model, samples, monkeypatch: pytest.MonkeyPatch
):
    """transformers' own test for packed rows there, which only a batch of one row passes."""
    from transformers.modeling_flash_attention_utils import _is_packed_sequence

    inputs = pack(samples[1:2] * 2)
    positions = inputs["position_ids"]
    assert _is_packed_sequence(positions, batch_size=1)
    assert not _is_packed_sequence(positions.repeat(2, 1), batch_size=2)
    both = {"input_ids": inputs["input_ids"].repeat(2, 1), "position_ids": positions.repeat(2, 1)}
    config = model.config.text_config
    monkeypatch.setattr(config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(ValueError, match="only in a batch of one row, got 2"):
        model(**both)


def test_padded_batches_with_positions_are_no_packing(model, processor):
    inputs = encode(processor, "what?", [picture(0)])
    plain = model(**inputs).logits[0]
    pad = torch.full((1, 4), processor.tokenizer.pad_token_id)
    mask = torch.cat([torch.zeros_like(pad), inputs["attention_mask"]], dim=1)
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)  # as `generate` writes them
    padded = {**inputs, "input_ids": torch.cat([pad, inputs["input_ids"]], dim=1)}
    padded |= {"attention_mask": mask, "position_ids": positions}
    logits = model.train()(**padded).logits[0, 4:]
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)


def test_packed_loss_and_gradients_equal_separate(model, samples):
    parameters = [p for p in model.parameters() if p.requires_grad]
    labels = [s["input_ids"].masked_fill(s["input_ids"] >= 292, -100) for s in samples]
    for row in labels:
        row[0, 0] = -100  # nothing predicts the first token of a packed sample
    count = sum(int((row != -100).sum()) for row in labels)
    packed = model(**pack(samples), labels=torch.cat(labels, dim=1), num_items_in_batch=count).loss
    packed.backward()
    together = [p.grad.clone() for p in parameters]
    model.zero_grad()
    apart = 0.0
    for inputs, row in zip(samples, labels, strict=True):
        loss = model(**inputs, labels=row, num_items_in_batch=count).loss
        loss.backward()
        apart += loss.item()
    assert packed.item() == pytest.approx(apart, abs=1e-5)
    for one, two in zip(together, parameters, strict=True):
        torch.testing.assert_close(one, two.grad, atol=1e-5, rtol=1e-4)
