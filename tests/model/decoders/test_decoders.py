"""Every registered decoder: scores, gradients and texts are those of transformers' own classes."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

from siqvl.data.collate import PackedCollator, SFTCollator
from siqvl.data.encode import encode_sft
from siqvl.data.schema import sft_row
from siqvl.generation.beginnings import Prompt
from siqvl.generation.decoder import Decoder
from siqvl.generation.loop import write
from siqvl.generation.reading import Reader
from siqvl.model import assemble
from siqvl.model.decoders import DECODERS, QWEN2, decoder_of
from siqvl.publish.onnx.graphs import DecoderGraph
from siqvl.training.loop.arguments import sharded_layers
from tests.model.tiny_siqvl import (
    TINY_DECODERS,
    batch_of,
    encode,
    picture,
    tiny_text_config,
    write_language,
)

ROWS = [("what is it?", [picture(0)]), ("a blue circle", []), ("b c", [picture(1), picture(2)])]
SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SHAPE += ("num_key_value_heads", "vocab_size", "max_position_embeddings", "tie_word_embeddings")
ANSWERS = ["red", "a blue circle and a red square", "2"]


@pytest.fixture
def made(family):
    return family.assembled()


def test_every_family_is_tested():
    assert TINY_DECODERS.keys() == DECODERS.keys()


def test_others_are_named_with_those_that_are_there():
    with pytest.raises(ValueError, match=r"^the language model has model_type 'llama'; supported "):
        decoder_of(LlamaConfig())


def test_sizes_of_linear_layers_are_those_of_its_layers(family, made):
    model, _ = made
    found = {
        name.rpartition(".")[2]: (layer.in_features, layer.out_features)
        for name, layer in model.model.language_model.layers[0].named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    config = model.config.text_config
    assert decoder_of(config).linear_sizes(config) == found
    assert decoder_of(config).layer_products(config) == sum(a * b for a, b in found.values())


@torch.no_grad()
def test_scores_are_those_of_its_own_class(family, made):
    model, processor = made
    reference = AutoModelForCausalLM.from_pretrained(family.language).eval()
    batch = batch_of(processor, ROWS)
    embeds = reference.get_input_embeddings()(batch["input_ids"])
    images = model.get_image_features(batch["pixel_values"], return_dict=True).pooler_output
    embeds[batch["input_ids"] == model.config.image_token_id] = images.flatten(0, 1)
    mask = batch["attention_mask"]
    expected = reference(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits
    assert torch.equal(model(**batch).logits[mask.bool()], expected[mask.bool()])


@torch.no_grad()
def test_it_writes_the_same_with_and_without_a_cache(made):
    model, processor = made
    inputs = encode(processor, "what?", [picture(0)])
    options = dict(max_new_tokens=8, do_sample=False, eos_token_id=None)
    cached = model.generate(**inputs, **options)
    assert torch.equal(cached, model.generate(**inputs, use_cache=False, **options))
    assert len(cached[0, -8:].unique()) > 2  # a model that repeats one token would prove nothing


def test_the_engine_reads_as_the_model_does(made):
    """States of every layer of our own arithmetic, with beginnings that prompts share."""
    model, _ = made
    image, tokens = model.config.image_token_id, model.config.tokens_per_image
    with torch.inference_mode():
        seen = model.get_image_features(torch.rand(2, 3, 16, 16), return_dict=True).pooler_output
        begun = [5, 6, *[image] * tokens, 7]
        ends = [[20, 21, 22, 23], [30, 31], [40, 41, 42]]
        prompts = [
            Prompt.asked([*begun, *end], (number % 2,), image) for number, end in enumerate(ends)
        ]
        hidden, starts = Reader(model).states(prompts, lambda names: seen[list(names)])
        scores = Decoder(model, 3).read(prompts, lambda names: seen[list(names)], 0)
        for row, prompt in enumerate(prompts):
            ids = torch.tensor([prompt.ids])
            embeds = model.get_input_embeddings()(ids)
            embeds[ids == image] = seen[prompt.pictures[0]]
            states = model.model.language_model(inputs_embeds=embeds).last_hidden_state[0]
            own = states[starts[row] :]
            torch.testing.assert_close(hidden[row, : len(own)], own, atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(scores[row], model.lm_head(states[-1]), atol=1e-4, rtol=1e-4)


def test_the_engine_reads_in_bf16_as_the_model_does(made):
    """Norms of heads stay in fp32 inside, as transformers' do."""
    model = made[0].bfloat16()
    prompts = [Prompt([20, 21, 22, 23, 24, 25]), Prompt([30, 31, 32])]
    with torch.inference_mode():
        scores = Decoder(model, 2).read(prompts, lambda names: names, 0).float()
        expected = [model(torch.tensor([one.ids])).logits[0, -1].float() for one in prompts]
        exact = [model.float()(torch.tensor([one.ids])).logits[0, -1] for one in prompts]
    for ours, theirs, fp32 in zip(scores, expected, exact, strict=True):
        rounding = (theirs - fp32).abs().max()
        assert 0 < rounding < 0.1 * fp32.abs().max()
        assert (ours - fp32).abs().max() < 2 * rounding


def test_the_engine_writes_what_generate_writes(made):
    compare_writing(*made)


@pytest.mark.parametrize("kind", [LlamaConfig, MistralConfig])
def test_the_next_decoder_is_one_entry(parts, tmp_path, monkeypatch, kind):
    """What docs/parts.md says of a new one, with families that are not there."""
    values = tiny_text_config().to_diff_dict()
    values = {name: values[name] for name in SHAPE} | {"pad_token_id": 0}
    monkeypatch.setitem(
        DECODERS,
        kind.model_type,
        replace(QWEN2, model_type=kind.model_type, name="Next"),
    )
    write_language(tmp_path, kind(**values))
    model, processor = assemble(parts[0], tmp_path, system_prompt="")
    assert sharded_layers(model.config)[1] == type(model.model.language_model.layers[0]).__name__
    compare_writing(model, processor)


@torch.no_grad()
def compare_writing(model, processor):
    """Three places for five prompts, two of which begin alike."""
    image = model.config.image_token_id
    pictures = [picture(seed) for seed in range(3)]
    pixels = processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    seen = model.get_image_features(pixels, return_dict=True).pooler_output
    asked = [("what?", (0,)), ("red", ()), ("and", (1, 2)), ("a blue circle", (0,)), ("b", (2,))]
    prompts, expected = [], []
    for question, shown in asked:
        inputs = encode(processor, question, [pictures[number] for number in shown])
        prompts.append(Prompt.asked(inputs["input_ids"][0].tolist(), shown, image))
        out = model.generate(**inputs, max_new_tokens=9, do_sample=False, eos_token_id=None)
        expected.append(out[0, inputs["input_ids"].shape[1] :].tolist())
    encoded = lambda names: seen[list(names)]  # noqa: E731
    found = dict(write(model, prompts, encoded, places=3, max_new_tokens=9, end_ids=[]))
    assert [found[number].ids for number in range(len(asked))] == expected


def learnt(model, batches) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Sums of losses, and the gradients of all of them together."""
    losses = []
    for batch in batches:
        loss = -model(**batch, head_chunk=64, use_cache=False).log_probs.sum()
        loss.backward()
        losses.append(loss.item())
    return losses, {
        name: one.grad for name, one in model.named_parameters() if one.grad is not None
    }


@pytest.fixture
def items(made):
    rows = [
        sft_row(f"made/{number}", images, question, answer, source="made")
        for number, ((question, images), answer) in enumerate(zip(ROWS, ANSWERS, strict=True))
    ]
    encoded = [encode_sft(row, made[1]) for row in rows]
    return [
        {"input_ids": one.input_ids, "labels": one.labels, "images": row["images"]}
        for one, row in zip(encoded, rows, strict=True)
    ]


@pytest.mark.parametrize(
    ("attention", "tolerance"),
    [("sdpa", 1e-10), ("eager", 1e-5)],  # whose softmax is in fp32 whatever the weights are in
)
def test_packed_rows_learn_as_padded_ones(family, items, attention, tolerance):
    model, processor = family.assembled(attn_implementation=attention)
    model.double().train()
    other = copy.deepcopy(model)
    padded, expected = learnt(other, [double(SFTCollator(processor)(items))])
    packed, found = learnt(model, [double(PackedCollator(processor)([items[:2], items[2:]]))])
    assert sum(packed) == pytest.approx(sum(padded), rel=tolerance)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=tolerance, rtol=tolerance, msg=name)
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            assert gradient.abs().max() > 1e-6, f"{name} learns nothing: this shows nothing"


def double(batch):
    return {
        name: one.double() if isinstance(one, torch.Tensor) and one.is_floating_point() else one
        for name, one in batch.items()
    }


def test_checkpointing_changes_no_gradient(made, items):
    model, processor = made
    model.train()
    other = copy.deepcopy(model)
    batch = SFTCollator(processor)(items)
    _, expected = learnt(other, [batch])
    model.activation_checkpointing_enable({"use_reentrant": False})
    calls = []
    layer = model.model.language_model.layers[0]
    layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    _, found = learnt(model, [batch])
    assert len(calls) == 2  # forward, and once more on the way back
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@torch.no_grad()
def test_the_graph_of_an_export_computes_its_scores(family):
    model, processor = family.assembled(attn_implementation="eager")
    graph, text = DecoderGraph(model), model.config.text_config
    batch = batch_of(processor, ROWS)
    images = model.get_image_features(batch["pixel_values"], return_dict=True).pooler_output
    mask, ids = batch["attention_mask"], batch["input_ids"]
    empty = torch.zeros(len(ids), text.num_key_value_heads, 0, graph.head_size)
    cache = [empty] * (2 * text.num_hidden_layers)
    scores, cache = graph(ids, images.flatten(0, 1), mask, cache)
    expected = model(**batch).logits
    real = mask.bool()
    torch.testing.assert_close(scores[real], expected[real], atol=1e-4, rtol=1e-4)
    more = torch.full((len(ids), 1), 77)
    longer = torch.cat([mask, torch.ones_like(more)], 1)
    step, _ = graph(more, images.flatten(0, 1)[:0], longer, cache)
    whole = model(
        input_ids=torch.cat([ids, more], 1),
        attention_mask=longer,
        pixel_values=batch["pixel_values"],
    )
    torch.testing.assert_close(step[:, -1], whole.logits[:, -1], atol=1e-4, rtol=1e-4)


def test_what_is_wrapped_and_split_is_there(made):
    """Names by which FSDP, device maps and tensor parallelism cut the model."""
    model, _ = made
    layers = model.model.language_model.layers
    layer = type(layers[0]).__name__
    assert sharded_layers(model.config) == ["SiglipEncoderLayer", layer]
    assert layer in model._no_split_modules
    names = {name for name, _ in layers[0].named_modules()}
    assert {f"self_attn.{one}_proj" for one in "qkvo"} <= names
    assert model._tp_plan["model.language_model.layers.*.self_attn.q_proj"] == "colwise"
