"""The chat template of a checkpoint: its decoder's family's, with what a recipe decides."""

from __future__ import annotations

import json
from typing import Literal

from transformers import PreTrainedTokenizerBase

from .decoders import QWEN2, DenseDecoder

#: How answers begin: without thoughts, after an empty block of thoughts, with a block that the
#: model opens itself, or in one that the prompt opens.
Thinking = Literal["none", "off", "on", "always"]

THOUGHT_BEGINS, THOUGHT_ENDS = "<think>", "</think>"
#: What a prompt ends with -> the kind of model whose template ends it so, asked for no thoughts.
_KINDS: dict[str, Thinking] = {
    f"{THOUGHT_BEGINS}\n\n{THOUGHT_ENDS}\n\n": "off",
    f"{THOUGHT_BEGINS}\n": "always",
}


def chat_template(
    system_prompt: str | None = None,
    *,
    decoder: DenseDecoder = QWEN2,
    thinking: Thinking = "none",
) -> str:
    """The Jinja source of a family's template with this default system message baked in.

    Args:
        system_prompt: None keeps the family's own; "" renders no system turn unless the messages
            bring one.
        thinking: "none" but for a family that thinks.
    """
    source = decoder.template.read_text(encoding="utf-8")
    if system_prompt is not None:
        source = _with(
            source, decoder, "default_system_message", decoder.system_prompt, system_prompt
        )
    if thinking != "none":
        source = _with(source, decoder, "thinking", "none", thinking)
    return source


def thinking_of(
    tokenizer: PreTrainedTokenizerBase, decoder: DenseDecoder, wanted: bool | None, source: object
) -> Thinking:
    """How answers of a published language model begin, as its own chat template has it.

    The template tells models of one family apart, of which the configuration is the same: a hybrid
    one heeds `enable_thinking`, one that never thinks does not, and one that always does opens a
    block of thoughts in every prompt.

    Args:
        wanted: `model.thinking` of the recipe; None: no thoughts, where that can be had.
        source: of the language model, for messages.

    Raises:
        ValueError: what is wanted cannot be had of this model, or its tokens are missing.
    """
    published = _published(tokenizer, decoder, source)
    if published == "off":
        found: Thinking = "on" if wanted else "off"
    elif wanted is False and published == "always":
        raise ValueError(
            f"{source} opens a block of thoughts in every prompt: leave model.thinking out, or "
            "take a model that can answer without"
        )
    elif wanted and published == "none":
        raise ValueError(
            f"{source} has no {THOUGHT_BEGINS} … {THOUGHT_ENDS} in its chat template, so "
            "model.thinking cannot be true: leave it out, or take a model that thinks"
        )
    else:
        found = published
    vocabulary = tokenizer.get_vocab() if found != "none" else {}
    for token in (THOUGHT_BEGINS, THOUGHT_ENDS) if found != "none" else ():
        if token not in vocabulary:
            raise ValueError(
                f"the tokenizer of {source} has no token {token!r}, which its template writes"
            )
    return found


def _published(
    tokenizer: PreTrainedTokenizerBase, decoder: DenseDecoder, source: object
) -> Thinking:
    if not decoder.thinks or not tokenizer.chat_template:
        return "none"
    question = [{"role": "user", "content": "?"}]
    try:
        text = tokenizer.apply_chat_template(
            question, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    except Exception as error:  # a template is a program of whoever published it
        raise ValueError(f"{source}: its chat template renders no question ({error})") from error
    return next((kind for end, kind in _KINDS.items() if str(text).endswith(end)), "none")


def _with(source: str, decoder: DenseDecoder, name: str, old: str, new: str) -> str:
    """A template in which a variable that is set once has another text."""
    line = f'{{%- set {name} = "{old}" %}}'
    if source.count(line) != 1:
        raise ValueError(
            f"{decoder.template} must hold this line once, found {source.count(line)}: {line}"
        )
    # Jinja reads a JSON string literal as it is, as long as characters are not \u-escaped in pairs.
    return source.replace(line, f"{{%- set {name} = {json.dumps(new, ensure_ascii=False)} %}}")
