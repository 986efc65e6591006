"""One graph, without a break: torch.compile and torch.export, with sequence and batch left open."""

import pytest
import torch
from torch.export import Dim
from transformers import DynamicCache, StaticCache

from tests.model.tiny_siqvl import batch_of, encode, picture


def compiled(model):
    """`fullgraph` turns a graph break into an error; the eager backend needs no C++ compiler."""
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend="eager")


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_a_text_prompt_and_a_step_compile_whole(model, processor, padded):
    rows = [("what is in the picture?", []), ("a", [])] if padded else [("what?", [])]
    inputs = batch_of(processor, rows)
    expected = model(**inputs, use_cache=True)
    whole = compiled(model)
    found = whole(**inputs, past_key_values=DynamicCache(config=model.config), use_cache=True)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
    token = expected.logits[:, -1:].argmax(-1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(token)], dim=1)
    step = {"input_ids": token, "attention_mask": mask}
    expected = model(**step, past_key_values=expected.past_key_values)
    found = whole(**step, past_key_values=found.past_key_values)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_static_cache_compiles_whole(model, processor):
    inputs = encode(processor, "what?")
    cache = StaticCache(config=model.config, max_cache_len=128)
    found = compiled(model)(input_ids=inputs["input_ids"], past_key_values=cache)
    expected = model(input_ids=inputs["input_ids"])
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pictures_compile_whole_and_are_counted_in_the_graph(model, processor):
    inputs = encode(processor, "what?", [picture(0), picture(1)])
    whole = compiled(model)
    found = whole(**inputs, use_cache=False).logits
    torch.testing.assert_close(found, model(**inputs).logits, atol=1e-5, rtol=1e-5)
    inputs["input_ids"][inputs["input_ids"] == model.config.image_token_id] = 5
    with pytest.raises(RuntimeError, match="Image features and image tokens do not match"):
        whole(**inputs, use_cache=False)


class Logits(torch.nn.Module):
    """A graph's output is plain tensors."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, pixel_values=None):
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            use_cache=False,
        ).logits


@torch.no_grad()
def test_text_is_exported_with_batch_and_sequence_left_open(model, processor):
    inputs = dict(batch_of(processor, [("what is in the picture?", []), ("a", [])]))
    batch, sequence = Dim("batch", max=64), Dim("sequence", max=512)
    shapes = {name: {0: batch, 1: sequence} for name in inputs}
    exported = torch.export.export(
        Logits(model), (), inputs, dynamic_shapes=shapes, strict=False
    ).module()
    for rows in ([("a", [])], [("what is in the picture?", []), ("b c", []), ("red", [])]):
        other = dict(batch_of(processor, rows))
        expected = model(**other).logits
        torch.testing.assert_close(exported(**other), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pictures_are_exported_with_their_number_left_open(model, processor):
    rows = [("what?", [picture(0)]), ("a b", [picture(1), picture(2)])]
    inputs = dict(batch_of(processor, rows))
    batch, sequence, images = Dim("batch", max=64), Dim("sequence", max=512), Dim("images", max=64)
    shapes = {name: {0: batch, 1: sequence} for name in inputs} | {"pixel_values": {0: images}}
    exported = torch.export.export(
        Logits(model), (), inputs, dynamic_shapes=shapes, strict=False
    ).module()
    for rows in (
        [("a", [picture(3)]), ("b", [picture(0)])],
        [("one", [picture(0), picture(1)]), ("two", []), ("three and more", [picture(2)] * 3)],
    ):
        other = dict(batch_of(processor, rows))
        expected = model(**other).logits
        torch.testing.assert_close(exported(**other), expected, atol=1e-5, rtol=1e-5)
