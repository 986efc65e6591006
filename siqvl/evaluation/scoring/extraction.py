"""The answer in what a model wrote."""

from __future__ import annotations

import re

from siqvl.composed_text import composed

_BOXED = re.compile(r"\\boxed\{(.*)\}")  # greedy: its content may hold braces itself
_TEXT = re.compile(r"\\text\{([^{}]*)\}")


def extract_answer(generation: str, marker: str | None) -> str:
    r"""Finds the text after the last `marker`; the whole generation without a marker to look for.

    A chain of thought that never reaches its marker has given no answer: the result is empty. Of
    what follows the marker the first line with text counts, without the wrapping that models put
    around an answer: Markdown's `**`, TeX's `$` and `\boxed{}`, and a closing full stop.
    Thoughts before it (`<think>` … `</think>`) are none of it, and where they never end there is
    no answer.
    Generation and marker are composed (NFC) before: they may be encoded differently.
    """
    generation = without_thoughts(composed(generation))
    if marker is None:
        return generation.strip()
    _, found, rest = generation.rpartition(composed(marker))
    lines = (line.strip(" \t*`") for line in rest.splitlines()) if found else ()
    answer = next(filter(None, lines), "")
    if len(answer) > 1 and answer[0] == answer[-1] == "$":  # TeX; a single one is money
        answer = answer.strip("$")
    if boxed := _BOXED.search(answer):
        answer = boxed.group(1)
    answer = _TEXT.sub(r"\1", answer)
    return answer.removesuffix(".").strip(" \t*`")


def without_thoughts(generation: str) -> str:
    """What follows the block of thoughts that a generation begins with; all, if there is none."""
    thoughts, ended, rest = generation.partition("</think>")
    if ended:
        return rest.lstrip("\n")
    return "" if thoughts.lstrip().startswith("<think>") else generation
