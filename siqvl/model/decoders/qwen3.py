"""Qwen3, the dense ones: queries and keys are normed, no biases, heads of a width of their own."""

from __future__ import annotations

from pathlib import Path

from .dense_decoder import DenseDecoder

QWEN3 = DenseDecoder(
    model_type="qwen3",
    name="Qwen3",
    template=Path(__file__).with_name("qwen3_template.jinja"),
    head_norms=("q_norm", "k_norm"),
    thinks=True,
)
