"""Weights shared out to two processes (tensor parallelism of transformers) compute the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from siqvl.model import SiQVLConfig, SiQVLForConditionalGeneration
from tests.data.conftest import make_processor
from tests.model.tiny_siqvl import (
    TINY_DECODERS,
    encode,
    make_tokenizer,
    picture,
    tiny_vision_config,
    widen,
)

pytestmark = pytest.mark.integration

PROCESSOR = make_processor(make_tokenizer())
TOKEN = PROCESSOR.image_token_id

#: Runs in each process; siqvl is not there, as with a checkpoint that came from the hub.
SHARED = """
import sys, torch
sys.modules["siqvl"] = None
from transformers import AutoModelForImageTextToText
from transformers.distributed.configuration_utils import DistributedConfig
from torch.distributed.tensor import DTensor

folder, inputs, out = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(
    folder, trust_remote_code=True, dtype="float32",
    distributed_config=DistributedConfig(tp_plan="auto"),
)
head, table = model.lm_head.weight, model.get_input_embeddings().weight
assert model.config.tie_word_embeddings == (head is table), (type(head), type(table))
layer = model.model.language_model.layers[0]
shared = [head, table, layer.self_attn.q_proj.weight, layer.mlp.down_proj.weight]
assert all(isinstance(one, DTensor) for one in shared), [type(one) for one in shared]
assert layer.mlp.down_proj.weight.to_local().shape[1] * 2 == layer.mlp.down_proj.weight.shape[1]
inputs = torch.load(inputs, weights_only=True)
with torch.no_grad():
    logits = [model(**one).logits for one in inputs]
    written = [model.generate(**one, max_new_tokens=6, do_sample=False) for one in inputs]
if torch.distributed.get_rank() == 0:
    logits = [one.full_tensor() if isinstance(one, DTensor) else one for one in logits]
    torch.save({"logits": logits, "written": written}, out)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def torchrun(script: str, folder: Path, *arguments: Path) -> None:
    (folder / "shared.py").write_text(script, encoding="utf-8")
    kept = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(folder / "shared.py"), *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@torch.no_grad()
@pytest.mark.parametrize(("family", "tied"), [("qwen2", True), ("qwen2", False), ("qwen3", True)])
def test_two_processes_compute_what_one_does(tmp_path: Path, family: str, tied: bool) -> None:
    torch.manual_seed(0)
    config = SiQVLConfig(
        vision_config=tiny_vision_config(),
        text_config=TINY_DECODERS[family](tie_word_embeddings=tied),
        image_token_id=TOKEN,
    )
    model = SiQVLForConditionalGeneration(config).eval()
    widen(model)
    model.save_pretrained(tmp_path / "checkpoint")
    inputs = [
        dict(encode(PROCESSOR, "what?", [picture(number) for number in range(images)]))
        for images in (0, 2)
    ]
    torch.save(inputs, tmp_path / "inputs.pt")
    torchrun(SHARED, tmp_path, tmp_path / "checkpoint", tmp_path / "inputs.pt", tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    alone = SiQVLForConditionalGeneration.from_pretrained(tmp_path / "checkpoint").eval()
    for number, one in enumerate(inputs):
        expected = alone(**one).logits
        torch.testing.assert_close(found["logits"][number], expected, atol=1e-4, rtol=1e-4)
        written = alone.generate(**one, max_new_tokens=6, do_sample=False)
        assert torch.equal(found["written"][number], written)
