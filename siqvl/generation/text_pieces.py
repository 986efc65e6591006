"""Tokens of one completion -> text that can be shown as it comes."""

from __future__ import annotations

from collections.abc import Sequence

from siqvl.model.processing import SiQVLProcessor

#: What a decoder writes for bytes that are no character, or not yet one.
UNFINISHED = "\ufffd"


class TextPieces:
    """Text as it becomes certain: whole characters, and nothing that may turn out to be a stop.

    All pieces together are what `batch_decode` makes of all tokens, without special tokens, without
    surrounding space and cut before the first stop.

    Args:
        stop: strings before which the text ends.
    """

    def __init__(self, processor: SiQVLProcessor, stop: Sequence[str] = ()) -> None:
        self._processor = processor
        self._stop = stop
        self._tokens: list[int] = []  # from which text is still to come
        self._pending = ""  # text that is not certain yet
        self._began = False
        self.stopped = False

    def add(self, token: int) -> str:
        """Takes one more token; returns what has become certain, and sets `stopped`."""
        self._tokens.append(token)
        text = self._decoded()
        if text.endswith(UNFINISHED):
            return ""
        self._tokens.clear()
        return self._certain(text)

    def end(self) -> str:
        """Returns what is left; no token comes after."""
        certain = self._certain(self._decoded())
        rest, self._pending = ("" if self.stopped else self._pending.rstrip()), ""
        return certain + (rest if self._began else rest.lstrip())

    def _decoded(self) -> str:
        text: str = self._processor.batch_decode([self._tokens], skip_special_tokens=True)[0]
        return text

    def _certain(self, text: str) -> str:
        self._pending += text
        found = [at for at in map(self._pending.find, self._stop) if at >= 0]
        if found:
            self.stopped = True
            told, self._pending = self._pending[: min(found)].rstrip(), ""
        else:
            told = self._pending[: len(self._pending) - self._perhaps_a_stop()].rstrip()
            self._pending = self._pending[len(told) :]
        told = told if self._began else told.lstrip()
        self._began |= bool(told)
        return told

    def _perhaps_a_stop(self) -> int:
        """Counts the characters at the end with which a stop begins."""
        longest = max(map(len, self._stop), default=1) - 1
        for count in range(min(longest, len(self._pending)), 0, -1):
            if any(one.startswith(self._pending[-count:]) for one in self._stop):
                return count
        return 0
