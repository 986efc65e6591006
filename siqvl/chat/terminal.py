"""The conversation in a terminal: lines that are typed, answers as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TextIO

from siqvl.chat.conversation import Conversation
from siqvl.chat.picture_input import Pictures
from siqvl.chat.spoken import Spoken, printable, speak
from siqvl.chat.typed_line import COMMANDS, Typed, read_line
from siqvl.errors import UserError
from siqvl.generation.engine import Engine
from siqvl.generation.request import Sampling

PROMPT = "> "


@dataclass
class Terminal:
    """A conversation that goes on until Ctrl-D or `/quit`.

    Args:
        out: where everything is shown.
        line: gives the next line that is typed, as `input` does.
        is_plain: shows no colours.
    """

    engine: Engine
    conversation: Conversation
    pictures: Pictures
    sampling: Sampling
    out: TextIO
    line: Callable[[str], str] = input
    is_plain: bool = False

    def run(self) -> None:
        """Takes lines and answers them; what cannot be done is said, and ends nothing."""
        while True:
            try:
                line = self.line(PROMPT)
            except EOFError:
                self._show("\n")
                return
            except KeyboardInterrupt:
                self._say("\nCtrl-D or /quit ends; Ctrl-C stops an answer")
                continue
            try:
                typed = read_line(line)
                if typed.command == "quit":
                    return
                self._do(typed)
            except UserError as error:
                self._say(error.message)
            except KeyboardInterrupt:  # while a picture was read, or fetched
                self._say("\nstopped")

    def show(self, places: Sequence[str]) -> None:
        """Shows pictures with the next question.

        Raises:
            UserError: one cannot be read.
        """
        for place in places:
            picture = self.pictures.read(place)
            self.conversation.attach(picture)
            self._say(f"picture {self.conversation.waiting} of the next question: {picture}")

    def _do(self, typed: Typed) -> None:
        self.show(typed.pictures)
        if typed.command:
            self._obey(typed.command, typed.text)
        elif typed.text:
            self._answer(typed.text)

    def _answer(self, text: str) -> None:
        item, spoken = self.conversation.ask(text), Spoken()
        is_stopped = False
        try:
            speak(self.engine, item, self.sampling, spoken, lambda one: self._show(printable(one)))
        except KeyboardInterrupt:
            is_stopped = True
        except UserError:
            self.conversation.take_back()
            raise
        self._show("\n")
        self.conversation.answered(spoken.text)
        notes = [spoken.figures()]
        if is_stopped:
            notes.append("stopped")
        elif spoken.finish == "length":
            notes.append(f"cut at {self.sampling.max_new_tokens:,} tokens, see /max-tokens")
        if not spoken.text.strip():
            notes.append("it says nothing, and the question is taken back")
        self._say("; ".join(notes))

    def _obey(self, command: str, text: str) -> None:
        if command == "help":
            width = max(map(len, COMMANDS))
            self._say("\n".join(f"/{name:<{width}} {said}" for name, said in COMMANDS.items()))
        elif command == "reset":
            self.conversation.reset()
            self._say("a new conversation")
        elif command == "system":
            self.conversation.system = text or None
            self._say("the system prompt is this now" if text else "the model's own system prompt")
        elif command in FIGURES:
            self._set(command, text)

    def _set(self, command: str, text: str) -> None:
        """Changes how answers are written."""
        name, kind = FIGURES[command]
        if text:
            try:
                value: Any = kind(text)
            except ValueError:
                raise UserError(f"/{command} takes a number, not {text[:40]!r}") from None
            self.sampling = replace(self.sampling, **{name: value})
        self._say(f"{command} is {getattr(self.sampling, name)}")

    def _show(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()

    def _say(self, text: str) -> None:
        """Shows what is no answer."""
        text = printable(text)
        self._show(f"{text}\n" if self.is_plain else f"\033[2m{text}\033[0m\n")


FIGURES: dict[str, tuple[str, type[int] | type[float]]] = {
    "temperature": ("temperature", float),
    "top-p": ("top_p", float),
    "seed": ("seed", int),
    "max-tokens": ("max_new_tokens", int),
}
