"""How well `siqvl.training.memory.batch_memory` foretells the memory that real training steps take.

    python -m benchmarks.memory             # a table, a few minutes
    python -m benchmarks.memory --only bf16

Each setting is trained for a few steps in a process of its own, by a model of 54 million parameters
with Qwen's vocabulary, random weights and made batches. What the process holds at its peak, minus
what it held before the model was there, is compared with the estimate: once with every block given
back that is freed (`MALLOC_MMAP_THRESHOLD_`), and once with glibc as it comes, which keeps freed
blocks below 32 MiB and cannot always use them again. No download, no GPU; on a CUDA machine the
peak is torch's own, both times.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20


@dataclass(frozen=True)
class Setting:
    """A stage and a batch."""

    name: str
    rows: int
    width: int
    images: int
    learned: int
    precision: str = "fp32"
    attention: str = "sdpa"
    trainable: tuple[str, ...] = ("projector", "language_model")
    checkpointing: bool = False
    head_chunk: int = 1024
    accumulation: int = 1


ALL = ("vision_tower", "projector", "language_model")
SETTINGS = (
    Setting("fp32", 4, 512, 8, 512),
    Setting("fp32 eager", 4, 512, 8, 512, attention="eager"),
    Setting("fp32 two batches a step", 4, 512, 8, 128, accumulation=2),
    Setting("fp32 projector alone", 8, 512, 16, 512, trainable=("projector",)),
    Setting("fp32 all parts", 4, 512, 8, 256, trainable=ALL),
    Setting("fp32 small chunks", 4, 512, 8, 512, head_chunk=128),
    Setting("fp32 checkpointing", 8, 512, 16, 512, head_chunk=128, checkpointing=True),
    Setting("bf16", 8, 512, 16, 512, precision="bf16"),
    Setting("bf16 checkpointing", 8, 512, 16, 512, precision="bf16", checkpointing=True),
)


def config_of(setting: Setting) -> Any:
    from transformers import Qwen2Config, SiglipVisionConfig

    from siqvl.model.configuration import SiQVLConfig

    vision = SiglipVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6,
        image_size=224, patch_size=16,
    )  # fmt: skip
    text = Qwen2Config(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=12, num_attention_heads=8,
        num_key_value_heads=2, vocab_size=151_936, tie_word_embeddings=True,
    )  # fmt: skip
    config = SiQVLConfig(vision_config=vision, text_config=text, max_image_tokens=49)
    config._attn_implementation = setting.attention
    return config


def stage_of(setting: Setting) -> Any:
    from siqvl.recipe import SFTStage

    return SFTStage(
        sources=[{"kind": "made"}],
        trainable=list(setting.trainable),
        learning_rate=1e-4,
        max_steps=1,
        batch_size=setting.rows,
        accumulation=setting.accumulation,
        gradient_checkpointing=setting.checkpointing,
        head_chunk=setting.head_chunk,
    )


def estimated(setting: Setting) -> dict[str, float]:
    """Bytes, and seconds that it took to tell."""
    from siqvl.training.memory.batch_memory import estimate_memory
    from siqvl.training.memory.batch_shape import BatchShape

    start = time.perf_counter()
    shape = BatchShape(setting.rows, setting.width, setting.images, setting.learned)
    estimate = estimate_memory(
        config_of(setting),
        stage_of(setting),
        shape,
        setting.precision,  # type: ignore[arg-type]
    )
    return {
        "fixed": estimate.fixed,
        "total": estimate.total,
        "seconds": time.perf_counter() - start,
    }


def measured(setting: Setting) -> dict[str, float]:
    """Bytes at the peak of real steps, over those before there was a model."""
    import torch

    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.stages import freeze
    from siqvl.training.figures.telemetry import peak_memory
    from siqvl.training.loop.embedding import add_embedding_gradient_in_place

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.nn.functional.linear(torch.ones(8, 8, device=device), torch.ones(8, 8, device=device))
    before = 0 if device == "cuda" else _resident()
    model = SiQVLForConditionalGeneration._from_config(
        config_of(setting), attn_implementation=setting.attention
    ).to(device)
    freeze(model, list(setting.trainable))  # type: ignore[arg-type]
    add_embedding_gradient_in_place(model)
    if setting.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    learning = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, fused=True)
    bf16 = setting.precision == "bf16"
    for _ in range(3):
        for _ in range(setting.accumulation):
            batch = _batch(setting, model.config, device)
            with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
                outputs = model(**batch, use_cache=False, head_chunk=setting.head_chunk)
                loss = -outputs.log_probs.sum()
            del outputs, batch
            loss.backward()
            del loss
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {"peak": peak_memory() - before}


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _batch(setting: Setting, config: Any, device: str) -> dict[str, Any]:
    """Packs of four samples; pictures come first in each row, learned tokens last."""
    import torch

    ids = torch.randint(0, 150_000, (setting.rows, setting.width))
    pictures, learned = setting.images // setting.rows, setting.learned // setting.rows
    ids[:, 1 : 1 + pictures * config.tokens_per_image] = config.image_token_id
    labels = torch.full_like(ids, -100)
    labels[:, -learned:] = ids[:, -learned:]
    positions = torch.arange(setting.width) % (setting.width // 4)
    side = config.vision_config.image_size
    batch = {
        "input_ids": ids,
        "labels": labels,
        "position_ids": positions.expand(setting.rows, -1),
        "pixel_values": torch.rand(setting.images, 3, side, side),
    }
    return {name: value.to(device) for name, value in batch.items()}


@click.command()
@click.option("--only", default="", help="settings whose names begin so")
@click.option("--child", default=None, hidden=True)
def main(only: str, child: str | None) -> None:
    """Estimated against measured memory."""
    if child is not None:
        what, name = child.split(":")
        setting = next(one for one in SETTINGS if one.name == name)
        click.echo(json.dumps((estimated if what == "estimated" else measured)(setting)))
        return
    click.echo(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    heads = ("setting", "fixed", "estimated", "measured", "ratio", "by glibc", "ratio", "told in")
    click.echo("{:<24}{:>10}{:>10}{:>10}{:>7}{:>10}{:>7}{:>9}".format(*heads))
    for setting in SETTINGS:
        if setting.name.startswith(only):
            told = _in_child("estimated", setting.name)
            given_back = _in_child("measured", setting.name, MALLOC_MMAP_THRESHOLD_="131072")
            kept = _in_child("measured", setting.name)
            total, first, second = told["total"], given_back["peak"], kept["peak"]
            click.echo(
                f"{setting.name:<24}{told['fixed'] / MIB:>6,.0f} MiB{total / MIB:>6,.0f} MiB"
                f"{first / MIB:>6,.0f} MiB{total / first:>7.2f}{second / MIB:>6,.0f} MiB"
                f"{total / second:>7.2f}{told['seconds']:>7.1f} s"
            )


def _in_child(what: str, name: str, **variables: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", f"{what}:{name}"]
    environment = {"PYTHONPATH": str(ROOT), **os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
