"""Weights read one by one from one file or several, as transformers' own reading gives them."""

from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from siqvl.model.weight_files import one_by_one, weight_files


def saved(folder: Path, shard: str) -> dict[str, torch.Tensor]:
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder, max_shard_size=shard)
    return model.state_dict()


def test_of_one_file(tmp_path: Path) -> None:
    wanted = saved(tmp_path, "1GB")
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]
    found = dict(one_by_one(tmp_path))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_of_several(tmp_path: Path) -> None:
    wanted = saved(tmp_path, "8KB")
    assert len(weight_files(tmp_path)) > 2
    found = dict(one_by_one(tmp_path))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
