"""Pairs on several processes: the same steps, and log-probabilities from sharded weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from siqvl.checkpoint import read_history
from siqvl.data.pairs import PreferenceCollator
from siqvl.recipe import Distributed, Recipe, Stage
from siqvl.training.loop.launch import launch
from siqvl.training.preference.pair_log_probs import completion_log_probs, sums
from siqvl.training.stage import train_stage
from tests.training.made_pairs import pair, random_model

METRICS = ("loss", "rewards/chosen", "rewards/margins", "logps/rejected")


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
def test_two_processes_equal_one_of_twice_the_batch(trained, tmp_path: Path) -> None:
    """Packs hold different numbers of pairs, and each process runs the reference over its share."""
    histories, weights = [], []
    for processes, batch_size in ((1, 4), (2, 2)):
        content = trained.recipe.model_dump(mode="json")
        content["distributed"] = {"enabled": processes > 1, "processes": processes}
        content["features_dir"] = str(tmp_path / f"features-{processes}")
        content["stages"]["dpo"] |= {
            "loss": {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0},
            "batching": "packed",
            "max_length": 150,
            "pack_length": 240,
            "batch_size": batch_size,
            "max_steps": 3,
        }
        out = tmp_path / f"checkpoint-{processes}"
        train_stage(
            Stage.DPO,
            Recipe.model_validate(content),
            data=trained.data(Stage.DPO),
            checkpoint=trained.parent(Stage.DPO),
            output=out,
        )
        histories.append([[entry[name] for name in METRICS] for entry in read_history(out)])
        weights.append(load_file(out / "model.safetensors"))
        shards = list((tmp_path / f"features-{processes}").rglob("*.safetensors"))
        assert len(shards) == processes
    assert len(histories[0]) == 3
    for one, two in zip(*histories, strict=True):
        assert two == pytest.approx(one, abs=2e-3)
        assert two[0] == pytest.approx(one[0], abs=2e-4)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=2e-4, rtol=1e-3)


def sharded(folder: str) -> None:
    """A training process: log-probabilities of pairs, weights shared out by FSDP2."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo")
    model, processor = random_model("eager", torch.float32)
    for layer in model.model.language_model.layers:
        fully_shard(layer)
    fully_shard(model)
    found = log_probs(model, processor)
    if dist.get_rank() == 0:
        (Path(folder) / "found.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def log_probs(model, processor) -> list[float]:
    pairs = [pair(processor, number, images) for number, images in enumerate([1, 0, 2])]
    batch = PreferenceCollator(processor, shared_prompt=False)(pairs)
    return sums(completion_log_probs(model, batch, core=model, head_chunk=64)).tolist()


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
def test_whole_sides_work_on_weights_that_fsdp_shares_out(tmp_path: Path) -> None:
    launch(sharded, str(tmp_path), Distributed(enabled=True, processes=2))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == pytest.approx(log_probs(*random_model("eager", torch.float32)), abs=1e-3)
