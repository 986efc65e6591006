"""Forward passes, compared with transformers' own SigLIP and Qwen2 put together by hand."""

import pytest
import torch
from transformers import Qwen2ForCausalLM, SiglipModel, SiglipVisionModel
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

from tests.model.tiny_siqvl import batch_of, encode, picture


def composed_by_hand(parts, model, inputs) -> torch.Tensor:
    """Logits from the saved parts and a splice written out position by position."""
    tower = SiglipModel.from_pretrained(parts[0]).vision_model.eval()
    language = Qwen2ForCausalLM.from_pretrained(parts[1]).eval()
    projector = model.model.multi_modal_projector
    features = tower(inputs["pixel_values"]).last_hidden_state
    tokens = projector.norm(projector.linear(Idefics3Connector.pixel_shuffle(None, features, 2)))
    tokens = iter(tokens.reshape(-1, tokens.shape[-1]))
    embeds = language.model.embed_tokens(inputs["input_ids"]).clone()
    for row, ids in enumerate(inputs["input_ids"].tolist()):
        for column, token in enumerate(ids):
            if token == model.config.image_token_id:
                embeds[row, column] = next(tokens)
    assert next(tokens, None) is None
    return language(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).logits


@torch.no_grad()
def test_tower_is_siglips(parts, model, processor):
    pixels = encode(processor, "what?", [picture(0), picture(1)])["pixel_values"]
    reference = SiglipVisionModel.from_pretrained(parts[0]).eval()(pixels)
    assert torch.equal(model.model.get_vision_features(pixels), reference.last_hidden_state)
    assert reference.pooler_output is not None  # the head we leave out
    # After the final LayerNorm (gain 1, bias 0): every patch has mean 0.
    features = model.model.get_vision_features(pixels)
    torch.testing.assert_close(features.mean(-1), torch.zeros(2, 16), atol=1e-5, rtol=0)


@torch.no_grad()
def test_text_only_is_qwen2_exactly(parts, model, processor):
    reference = Qwen2ForCausalLM.from_pretrained(parts[1]).eval()
    inputs = batch_of(processor, [("what is in the picture?", []), ("a red square", [])])
    assert torch.equal(model(**inputs).logits, reference(**inputs).logits)


@torch.no_grad()
@pytest.mark.parametrize("images", [1, 2, 3])
def test_images_are_spliced_in_order(parts, model, processor, images):
    inputs = encode(processor, "what?", [picture(seed) for seed in range(images)])
    torch.testing.assert_close(
        model(**inputs).logits, composed_by_hand(parts, model, inputs), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_mixed_batch(parts, model, processor):
    rows = [("text only", []), ("two", [picture(0), picture(1)]), ("one, and longer", [picture(2)])]
    inputs = batch_of(processor, rows)
    logits = model(**inputs).logits
    reference = composed_by_hand(parts, model, inputs)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[real], reference[real], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_picture_matters(model, processor):
    one, other = (encode(processor, "what?", [picture(seed)]) for seed in (0, 1))
    assert (model(**one).logits - model(**other).logits).abs().max() > 1e-2


@torch.no_grad()
def test_batched_equals_single(model, processor):
    rows = [("a", [picture(0)]), ("what is in the picture?", []), ("b c", [picture(1), picture(2)])]
    logits = model(**batch_of(processor, rows)).logits
    for row, (question, images) in enumerate(rows):
        single = model(**encode(processor, question, images)).logits[0]
        torch.testing.assert_close(logits[row, -len(single) :], single, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model, processor, side):
    inputs = encode(processor, "what?", [picture(0)])
    plain = model(**inputs).logits[0]
    length = len(plain)
    pad = torch.full((1, 5), processor.tokenizer.pad_token_id)
    zero = torch.zeros((1, 5), dtype=torch.long)
    order = (lambda new, old: [new, old]) if side == "left" else (lambda new, old: [old, new])
    padded = dict(
        input_ids=torch.cat(order(pad, inputs["input_ids"]), dim=1),
        attention_mask=torch.cat(order(zero, inputs["attention_mask"]), dim=1),
        pixel_values=inputs["pixel_values"],
    )
    # Left padding needs positions that start at the first real token, as `generate` makes them.
    padded["position_ids"] = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    logits = model(**padded).logits[0]
    kept = logits[-length:] if side == "left" else logits[:length]
    torch.testing.assert_close(kept, plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_precomputed_features_equal_pixels(model, processor):
    inputs = encode(processor, "what?", [picture(0), picture(1)])
    reference = model(**inputs).logits
    pixels = inputs.pop("pixel_values")
    features = model.model.get_vision_features(pixels)
    assert features.shape == (2, 16, 16)
    assert torch.equal(model(**inputs, vision_features=features).logits, reference)
    encoded = {"image": model.get_image_features(pixels)}
    assert torch.equal(model(**inputs, mm_encoder_outputs=encoded).logits, reference)


@torch.no_grad()
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_precomputed_features_may_have_another_dtype_than_the_weights(model, processor, weights):
    inputs = encode(processor, "what?", [picture(0), picture(1)])
    stored = model.model.get_vision_features(inputs.pop("pixel_values")).to(torch.bfloat16)
    model.to(weights)
    reference = model(**inputs, vision_features=stored.to(weights)).logits
    for given in (stored, stored.float()):
        assert torch.equal(model(**inputs, vision_features=given).logits, reference)


@torch.no_grad()
def test_get_image_features(model, processor):
    pixels = encode(processor, "what?", [picture(0)])["pixel_values"]
    output = model.get_image_features(pixels)
    assert output.pooler_output.shape == (1, 4, 32)
    assert output.last_hidden_state.shape == (1, 16, 16)
    as_tuple = model.get_image_features(pixels, return_dict=False)
    assert torch.equal(as_tuple[1], output.pooler_output)
    assert output.hidden_states is None
    assert output.attentions is None


@torch.no_grad()
@pytest.mark.parametrize("backbone", [False, True])
def test_get_image_features_hands_on_what_the_tower_shows(parts, model, processor, backbone):
    model.set_attn_implementation("eager")  # sdpa makes no attention weights
    pixels = encode(processor, "what?", [picture(0), picture(1)])["pixel_values"]
    asked = dict(output_hidden_states=True, output_attentions=True)
    output = (model.model if backbone else model).get_image_features(pixels, **asked)
    tower = SiglipVisionModel.from_pretrained(parts[0], attn_implementation="eager").eval()
    reference = tower(pixels, **asked)
    for name, count, shape in (
        ("hidden_states", 3, (2, 16, 16)),
        ("attentions", 2, (2, 2, 16, 16)),
    ):
        found, expected = getattr(output, name), getattr(reference, name)
        assert len(found) == len(expected) == count
        for one, other in zip(found, expected, strict=True):
            assert one.shape == shape
            assert torch.equal(one, other)
    plain = model.get_image_features(pixels).pooler_output
    torch.testing.assert_close(output.pooler_output, plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_embeddings_instead_of_ids(model, processor):
    inputs = encode(processor, "what?", [picture(0)])
    reference = model(**inputs).logits
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.equal(model(**inputs, inputs_embeds=embeds).logits, reference)


def test_mismatch_names_both_counts(model, processor):
    inputs = encode(processor, "what?", [picture(0), picture(1)])
    pixels = inputs["pixel_values"]
    message = "Image features and image tokens do not match, tokens: 8, features: {}"
    for given, features in ((pixels[:1], 4), (torch.cat([pixels, pixels]), 16), (None, 0)):
        with pytest.raises(ValueError, match=message.format(features)):
            model(**{**inputs, "pixel_values": given})
    last = (inputs["input_ids"] == model.config.image_token_id).nonzero()[-1, 1]
    cut = inputs["input_ids"][:, :last]  # in the middle of an image
    with pytest.raises(ValueError, match="tokens: 7, features: 8"):
        model(input_ids=cut, pixel_values=pixels)
    text = encode(processor, "what?")
    with pytest.raises(ValueError, match="tokens: 0, features: 8"):
        model(**text, pixel_values=pixels)


def test_wrong_shapes_name_both(model, processor):
    inputs = encode(processor, "what?", [picture(0)])
    pixels = inputs.pop("pixel_values")
    with pytest.raises(ValueError, match=r"\[images, 3, 16, 16\], got \[1, 3, 20, 16\]"):
        model(**inputs, pixel_values=torch.zeros(1, 3, 20, 16))
    with pytest.raises(ValueError, match=r"\[images, 16, 16\], got \[1, 9, 16\]"):
        model(**inputs, vision_features=torch.zeros(1, 9, 16))
    features = model.model.get_vision_features(pixels)
    with pytest.raises(ValueError, match=r"more than once: pixel_values and vision_features"):
        model(**inputs, pixel_values=pixels, vision_features=features)
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        model(pixel_values=pixels)


@torch.no_grad()
def test_logits_to_keep(model, processor):
    inputs = encode(processor, "what?", [picture(0)])
    full = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, logits_to_keep=3).logits, full[:, -3:])
    positions = torch.tensor([2, 5])
    kept = model(**inputs, logits_to_keep=positions).logits
    torch.testing.assert_close(kept, full[:, positions])


@torch.no_grad()
def test_loss_is_shifted_cross_entropy_and_honours_num_items(model, processor):
    inputs = encode(processor, "what?", [picture(0)], answer="a red square")
    labels = inputs["input_ids"].clone()
    labels[labels == model.config.image_token_id] = -100
    output = model(**inputs, labels=labels)
    rows, targets = output.logits[0, :-1], labels[0, 1:]
    reference = torch.nn.functional.cross_entropy(rows, targets, ignore_index=-100)
    torch.testing.assert_close(output.loss, reference)
    summed = torch.nn.functional.cross_entropy(rows, targets, ignore_index=-100, reduction="sum")
    per_item = model(**inputs, labels=labels, num_items_in_batch=torch.tensor(7)).loss
    torch.testing.assert_close(per_item, summed / 7)


@torch.no_grad()
def test_sdpa_equals_eager(model, processor):
    inputs = batch_of(processor, [("a", [picture(0)]), ("what is in the picture?", [picture(1)])])
    sdpa = model(**inputs).logits
    assert model.model.vision_tower.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    assert model.model.vision_tower.config._attn_implementation == "eager"
    assert model.model.language_model.config._attn_implementation == "eager"
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(model(**inputs).logits[real], sdpa[real], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hidden_states_attentions_and_tuples(model, processor):
    model.set_attn_implementation("eager")
    inputs = encode(processor, "what?", [picture(0)])
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    length = inputs["input_ids"].shape[1]
    assert [tuple(state.shape) for state in output.hidden_states] == [(1, length, 32)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(1, 4, length, length)] * 2
    assert output.image_hidden_states.shape == (1, 4, 32)
    assert torch.equal(model(**inputs, return_dict=False)[0], output.logits)


def test_auxiliary_names_that_other_libraries_look_for(model):
    assert model.base_model is model.model  # TRL's fused head runs base_model + lm_head.weight
    assert model.get_decoder() is model.model.language_model
    assert model.get_encoder(modality="image") is model.model.vision_tower
    assert model.get_output_embeddings() is model.lm_head
    assert model.get_input_embeddings() is model.model.language_model.embed_tokens
    assert model.config.get_text_config() is model.config.text_config
    assert model.config.vision_config is model.model.vision_tower.config
    assert model.config.text_config is model.model.language_model.config
    for flag in ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn"):
        assert getattr(model, flag)
    assert model._supports_attention_backend
