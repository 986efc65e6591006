"""The processor: expansion, several images, mismatches, literals in text, the real tokenizer."""

import pytest
import torch
from transformers import AutoTokenizer, SiglipImageProcessor

from siqvl.data.image_tokens import VISION_TOKENS, neutralise_image_tokens
from siqvl.model import SiQVLProcessor
from tests.model.tiny_siqvl import conversation, encode, make_tokenizer, picture


def image_runs(processor, ids) -> list[int]:
    """Lengths of the runs of placeholders."""
    runs, previous = [], None
    for token in ids:
        if token == processor.image_token_id:
            if previous == token:
                runs[-1] += 1
            else:
                runs.append(1)
        previous = token
    return runs


@pytest.mark.parametrize("images", [0, 1, 3])
def test_each_placeholder_grows_to_the_tokens_of_an_image(processor, images):
    inputs = encode(processor, "what?", [picture(seed) for seed in range(images)])
    assert image_runs(processor, inputs["input_ids"][0].tolist()) == [4] * images
    assert ("pixel_values" in inputs) == bool(images)
    if images:
        assert inputs["pixel_values"].shape == (images, 3, 16, 16)


def test_pixels_keep_the_order_of_images(processor):
    pictures = [picture(seed) for seed in range(3)]
    together = encode(processor, "what?", pictures)["pixel_values"]
    for index, image in enumerate(pictures):
        assert torch.equal(together[index], encode(processor, "what?", [image])["pixel_values"][0])
    assert not torch.equal(together[0], together[1])


def test_pixels_are_siglips(processor):
    reference = SiglipImageProcessor(size={"height": 16, "width": 16})
    expected = reference(picture(0), return_tensors="pt")["pixel_values"]
    assert torch.equal(encode(processor, "what?", [picture(0)])["pixel_values"], expected)
    assert -1 <= expected.min() < expected.max() <= 1


def test_a_batch_of_zero_one_and_two_images(processor):
    texts = [
        processor.apply_chat_template(conversation("what?", images), add_generation_prompt=True)
        for images in (0, 1, 2)
    ]
    inputs = processor(
        text=texts,
        images=[picture(0), picture(1), picture(2)],
        padding=True,
        return_tensors="pt",
    )
    runs = [image_runs(processor, ids.tolist()) for ids in inputs["input_ids"]]
    assert runs == [[], [4], [4, 4]]
    assert inputs["attention_mask"][0, 0] == 0  # left padding
    assert inputs["attention_mask"][:, -1].all()


def test_nested_images_are_read_row_by_row(processor):
    texts = [
        processor.apply_chat_template(conversation("what?", images), add_generation_prompt=True)
        for images in (2, 1)
    ]
    nested = [[picture(0), picture(1)], [picture(2)]]
    flat = [image for row in nested for image in row]
    one, other = (
        processor(text=list(texts), images=images, padding=True, return_tensors="pt")
        for images in (nested, flat)
    )
    assert torch.equal(one["pixel_values"], other["pixel_values"])
    assert torch.equal(one["input_ids"], other["input_ids"])


def test_mismatches_name_both_numbers(processor):
    text = processor.apply_chat_template(conversation("what?", 2))
    with pytest.raises(ValueError, match=r"2 <\|image_pad\|> tokens and 1 images"):
        processor(text=[text], images=[picture(0)])
    with pytest.raises(ValueError, match=r"Found 2 <\|image_pad\|> tokens .* no images"):
        processor(text=[text])
    with pytest.raises(ValueError, match=r"0 <\|image_pad\|> tokens and 1 images"):
        processor(text=["nothing here"], images=[picture(0)])


def test_apply_chat_template_does_it_in_one_go(processor):
    messages = conversation("what?", 1)
    messages[0]["content"][0] = {"type": "image", "image": picture(0)}
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    expected = encode(processor, "what?", [picture(0)])
    for key in ("input_ids", "attention_mask", "pixel_values"):
        assert torch.equal(torch.as_tensor(inputs[key]), expected[key])


def test_modality_ids_mark_the_placeholders(processor):
    text = processor.apply_chat_template(conversation("what?", 1))
    inputs = processor(
        text=[text], images=[picture(0)], return_mm_token_type_ids=True, return_tensors="pt"
    )
    expected = (inputs["input_ids"] == processor.image_token_id).long()
    assert torch.equal(inputs["mm_token_type_ids"], expected)


def test_assistant_mask_covers_answer_and_end_token_only(processor):
    messages = conversation("what?", 1, answer="a red square")
    messages[0]["content"][0] = {"type": "image", "image": picture(0)}
    messages += conversation("and now?", 0, answer="a circle")
    out = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(out["input_ids"][0], out["assistant_masks"][0], strict=True)
    learned = [token for token, mask in pairs if mask]
    assert processor.decode(learned) == "a red square<|im_end|>a circle<|im_end|>"


def test_number_of_tokens_without_pixels(processor):
    data = processor._get_num_multimodal_tokens(image_sizes=[[10, 10], [500, 20]])
    assert (data.num_image_tokens, data.num_image_patches) == ([4, 4], [1, 1])
    assert processor._get_num_multimodal_tokens().num_image_tokens is None


def test_settings_survive_saving(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = SiQVLProcessor.from_pretrained(tmp_path)
    assert again.num_image_tokens == 4
    assert again.image_token == "<|image_pad|>"
    assert again.image_token_id == processor.image_token_id
    assert again.chat_template == processor.chat_template
    assert again.tokenizer.padding_side == "left"
    assert again.tokenizer.pad_token == "<|endoftext|>"
    assert again.tokenizer.eos_token == "<|im_end|>"
    one, other = (encode(each, "what?", [picture(0)]) for each in (processor, again))
    for key in one:
        assert torch.equal(one[key], other[key])


def test_wrong_arguments_are_refused():
    image_processor = SiglipImageProcessor()
    with pytest.raises(ValueError, match="positive int, got None"):
        SiQVLProcessor(image_processor, make_tokenizer())
    with pytest.raises(ValueError, match="positive int, got 0"):
        SiQVLProcessor(image_processor, make_tokenizer(), num_image_tokens=0)
    with pytest.raises(ValueError, match=r"splits '<image>' into \d+ tokens, expected 1"):
        SiQVLProcessor(image_processor, make_tokenizer(), 4, image_token="<image>")


@pytest.mark.parametrize("token", VISION_TOKENS)
def test_literals_become_text(processor, token):
    text, count = neutralise_image_tokens(f"what is {token}{token}?")
    assert count == 2
    assert text == f"what is <| {token[2:]}<| {token[2:]}?"
    special = set(processor.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS)))
    ids = processor.tokenizer(text)["input_ids"]
    assert not special & set(ids)
    assert processor.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    ["", "plain", "a < b | c > d", "<|im_end|>", "<image_pad>", "<| image_pad|>", "image_pad|>"],
)
def test_other_text_is_left_alone(text):
    assert neutralise_image_tokens(text) == (text, 0)


def test_no_literal_comes_together_from_pieces():
    nested = "<|image<|image_pad|>_pad|>"
    text, count = neutralise_image_tokens(nested)
    assert count == 1
    assert neutralise_image_tokens(text) == (text, 0)


def test_neutralised_text_passes_the_processor(processor):
    question, _ = neutralise_image_tokens("is <|image_pad|> a token?")
    inputs = encode(processor, question, [picture(0)])
    assert image_runs(processor, inputs["input_ids"][0].tolist()) == [4]
    with pytest.raises(ValueError, match=r"2 <\|image_pad\|> tokens and 1 images"):
        encode(processor, "is <|image_pad|> a token?", [picture(0)])


@pytest.fixture(scope="module")
def qwen_tokenizer(real_data):
    return AutoTokenizer.from_pretrained(real_data / "qwen2.5_tokenizer")


def test_real_tokenizer_gives_the_golden_ids(real_data, qwen_tokenizer):
    golden = real_data / "qwen2.5_tokenizer" / "golden"
    texts = (golden / "ggml-vocab-qwen2.gguf.inp").read_text(encoding="utf-8")
    texts = texts.split("\n__ggml_vocab_test__\n")
    rows = (golden / "ggml-vocab-qwen2.gguf.out").read_text().split("\n")[: len(texts)]
    expected = [[int(number) for number in row.split()] for row in rows]
    processor = SiQVLProcessor(SiglipImageProcessor(), qwen_tokenizer, num_image_tokens=81)
    assert len(texts) == 47
    for text, ids in zip(texts, expected, strict=True):
        assert processor.tokenizer.encode(text, add_special_tokens=False) == ids, repr(text)


def test_real_tokenizer_takes_81_placeholders(qwen_tokenizer):
    processor = SiQVLProcessor(SiglipImageProcessor(), qwen_tokenizer, num_image_tokens=81)
    assert processor.image_token_id == 151655
    inputs = processor(
        text=["<|vision_start|><|image_pad|><|vision_end|>What?"], images=[picture(0)]
    )
    ids = inputs["input_ids"][0]
    assert ids[:83] == [151652, *[151655] * 81, 151653]
    assert processor.decode(ids[83:]) == "What?"
