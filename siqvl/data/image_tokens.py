"""The model's image tokens where they stand literally in a text.

Apart from `siqvl.model`, which imports transformers: preparation has no other need of it.
"""

from __future__ import annotations

import re

#: Everything in Qwen's vocabulary that announces or stands for pixels.
VISION_TOKENS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VISION_TOKEN = re.compile("|".join(re.escape(token) for token in VISION_TOKENS))


def neutralise_image_tokens(text: str) -> tuple[str, int]:
    """Breaks vision tokens that stand literally in user text, so that they stay text.

    A question such as "what does <|image_pad|> mean?" would otherwise add a placeholder for which
    there is no picture. One space goes in after `<|` (`<| image_pad|>`): a person still reads it,
    the tokenizer sees plain characters, and nothing is removed, so no new literal can come
    together.

    Returns:
        The text, and how many literals were broken (0: the text is returned as it was).
    """
    return VISION_TOKEN.subn(lambda match: "<| " + match.group()[2:], text)
