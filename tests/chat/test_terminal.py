"""A conversation line by line, with the lines given and what is shown collected."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from siqvl.chat import picture_input
from siqvl.chat.open_chat import Chat
from siqvl.chat.spoken import Spoken, printable, speak
from siqvl.chat.terminal import Terminal
from siqvl.errors import UserError
from siqvl.generation.engine import Engine
from siqvl.generation.request import Piece
from tests.answers.conftest import write_picture

Typed = str | type[BaseException]


@pytest.fixture
def talked(chat: Chat) -> Callable[..., str]:
    """Types lines, and returns what is shown."""

    def talk(*lines: Typed, show: tuple[str, ...] = ()) -> str:
        left: Iterator[Typed] = iter(lines)

        def line(prompt: str) -> str:
            typed = next(left, EOFError)
            if isinstance(typed, str):
                return typed
            raise typed

        out = io.StringIO()
        found = replace(chat.sampling)
        terminal = Terminal(
            chat.engine, chat.conversation, chat.pictures, found, out, line, is_plain=True
        )
        terminal.show(show)
        terminal.run()
        return out.getvalue()

    return talk


def alone(chat: Chat, question: str, *places: str) -> str:
    for place in places:
        chat.conversation.attach(chat.pictures.read(place))
    spoken = Spoken()
    speak(chat.engine, chat.conversation.ask(question), chat.sampling, spoken, lambda _: None)
    chat.conversation.reset()
    return spoken.text


def test_an_answer_and_how_quickly_it_came(
    chat: Chat, talked: Callable[..., str], tmp_path: Path
) -> None:
    file = str(write_picture(tmp_path / "a b.png"))
    expected = alone(chat, "what is this?", file)
    shown = talked(f"'{file}' what is this?")
    assert "picture 1 of the next question: a b.png, 24 × 16\n" in shown
    assert f"\n{expected}\n" in shown
    assert "tokens/s, first after" in shown
    chat.conversation.reset()
    assert f"\n{expected}\n" in talked(f"/image {file}", "", "what is this?")
    chat.conversation.reset()
    assert f"\n{expected}\n" in talked("what is this?", show=(file,))


def test_commands_change_how_answers_are_written(talked: Callable[..., str]) -> None:
    shown = talked(
        "/help",
        "/max-tokens 2",
        "hello there",
        "/temperature 0.5",
        "/top-p 0.9",
        "/seed 7",
        "/seed",
        "/system be brief",
        "/system",
        "/reset",
        "/quit",
        "never asked",
    )
    assert "/reset       begin a new conversation" in shown
    assert "max-tokens is 2\n" in shown
    assert "2 tokens, " in shown
    assert "cut at 2 tokens, see /max-tokens" in shown
    for said in (
        "temperature is 0.5",
        "top-p is 0.9",
        "seed is 7\nseed is 7",
        "a new conversation",
    ):
        assert said in shown
    assert "never" not in shown


def test_what_is_wrong_ends_nothing(talked: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    shown = talked(
        "/nothing",
        "/image none.png",
        f"/image {tmp_path}/text.png",
        "/temperature hot",
        "/temperature -1",
        "/max-tokens 0",
        "/max-tokens 100000",
        "what?",
        "/max-tokens 2",
        "hello there",
    )
    for said in (
        "there is no command /nothing",
        "none.png cannot be read (No such file or directory)",
        "text.png: no picture that is read",
        "/temperature takes a number, not 'hot'",
        "temperature is -1.0, expected 0 to 100",
        "max_new_tokens is 0, expected 1 or more",
        "that are read and written here",
    ):
        assert said in shown
    assert "Traceback" not in shown
    assert "2 tokens" in shown  # the question before it was taken back


def test_ctrl_c_stops_an_answer_and_not_the_program(
    chat: Chat, talked: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Engine.stream

    def stopped(self: Engine, *given: object) -> Iterator[Piece]:
        pieces = stream(self, *given)  # type: ignore[arg-type]
        try:
            yield next(pieces)
            raise KeyboardInterrupt
        finally:
            pieces.close()  # type: ignore[attr-defined]

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "stream", stopped)
        shown = talked("hello", KeyboardInterrupt)
    assert "; stopped" in shown
    assert "Ctrl-D or /quit ends" in shown
    assert chat.engine.alive
    assert "tokens/s" in talked("and again")


def test_addresses_are_fetched_where_that_is_allowed(
    chat: Chat, talked: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_picture(tmp_path / "a.png").read_bytes()
    asked = []

    def fetch_picture(url: str, *, limit_bytes: int, timeout: float) -> bytes:
        asked.append(url)
        return data

    monkeypatch.setattr(picture_input, "fetch_picture", fetch_picture)
    shown = talked("/image https://pictures.test/a.png", "https://pictures.test/b.png what?")
    assert "picture 2 of the next question: b.png, 24 × 16" in shown
    assert asked == ["https://pictures.test/a.png", "https://pictures.test/b.png"]
    with pytest.raises(UserError, match="start with `--allow-urls`"):
        replace(chat.pictures, allow_urls=False).read("https://pictures.test/a.png")


def test_what_a_model_writes_does_not_steer_the_terminal() -> None:
    assert printable("a\x1b[2J\x07b\r\n\tc\x9b1m") == "a[2Jb\n\tc1m"
