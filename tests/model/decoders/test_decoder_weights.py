"""Published weights of every family: one file or shards, a tied head or one of its own."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from siqvl.model import assemble, load_checkpoint
from tests.model.tiny_siqvl import TINY_DECODERS, encode, picture, write_language

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shards", [None, "20KB"])
def test_weights_come_whole_from_their_files(family, tmp_path, tied, shards):
    options = {"max_shard_size": shards} if shards else {}
    write_language(tmp_path, TINY_DECODERS[family.model_type](tie_word_embeddings=tied), **options)
    assert (len(list(tmp_path.glob("model-*.safetensors"))) > 2) is bool(shards)
    assert (tmp_path / "model.safetensors.index.json").is_file() is bool(shards)
    model, processor = assemble(family.vision, tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path)
    found, expected = model.model.language_model.state_dict(), reference.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(model.lm_head.weight, reference.lm_head.weight)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is tied
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight) is tied
    saved = tmp_path / "saved"
    model.save_pretrained(saved, max_shard_size=shards or "1GB")
    processor.save_pretrained(saved)
    again, _ = load_checkpoint(saved)
    assert (again.lm_head.weight is again.get_input_embeddings().weight) is tied
    inputs = encode(processor, "what?", [picture(0)])
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def with_a_head(folder, family, *, of_its_own: bool):
    """A tied model whose file holds the head as well, as Qwen3-0.6B's and 1.7B's do."""
    shutil.copytree(family.language, folder)
    weights = load_file(folder / "model.safetensors")
    assert HEAD not in weights
    weights[HEAD] = weights[EMBEDDINGS] + (1.0 if of_its_own else 0.0)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_tied_head_may_be_in_the_file_as_well(family, tmp_path):
    model, _ = assemble(family.vision, with_a_head(tmp_path / "a", family, of_its_own=False))
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_a_head_that_contradicts_its_config_is_refused(family, tmp_path):
    folder = with_a_head(tmp_path / "a", family, of_its_own=True)
    with pytest.raises(ValueError, match=r"a: its config\.json says that the head is the embed"):
        assemble(family.vision, folder)


def test_quantized_weights_are_refused(family, tmp_path):
    folder = shutil.copytree(family.language, tmp_path / "fp8")
    edit(folder / "config.json", quantization_config={"quant_method": "fp8", "fmt": "e4m3"})
    with pytest.raises(
        ValueError, match=r"fp8 holds quantized weights, .* take the language model"
    ):
        assemble(family.vision, folder)


def test_a_model_type_that_transformers_does_not_know_is_named(family, tmp_path):
    folder = shutil.copytree(family.language, tmp_path / "newer")
    edit(folder / "config.json", model_type="qwen9")
    with pytest.raises(ValueError, match=r"newer has model_type 'qwen9', .* supported are Qwen2/"):
        assemble(family.vision, folder)


def test_a_checkpoint_of_a_family_that_is_not_there_is_named(family, tmp_path):
    model, processor = family.assembled()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    edit(tmp_path / "config.json", text_config=text | {"model_type": "llama"})
    with pytest.raises(ValueError, match=r"has a language model of model_type 'llama'; supported"):
        load_checkpoint(tmp_path)


def test_weights_are_drawn_where_there_are_none(family):
    """Matrices from the range of their configuration; gains are ones, biases zeros."""
    model, _ = family.assembled(init="config")
    for name, one in model.model.language_model.named_parameters():
        if one.dim() > 1:
            assert one.detach().std().item() == pytest.approx(0.02, rel=0.1), name
        else:
            assert one.unique().tolist() == [1.0 if "norm" in name else 0.0], name
