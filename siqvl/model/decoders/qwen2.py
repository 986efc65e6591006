"""Qwen2 and Qwen2.5, which share one configuration: queries, keys and values with biases."""

from __future__ import annotations

from pathlib import Path

from .dense_decoder import DenseDecoder

QWEN2 = DenseDecoder(
    model_type="qwen2",
    name="Qwen2/Qwen2.5",
    template=Path(__file__).parents[1] / "chat_template.jinja",
    system_prompt="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
)
