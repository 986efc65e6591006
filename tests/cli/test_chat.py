"""`siqvl chat` as a script uses it, and in a terminal."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from siqvl.cli.main import main
from tests.answers.conftest import checkpoint, write_picture

__all__ = ["checkpoint"]

SECONDS = 120


def run(*words: object, given: str | bytes = "") -> Result:
    return CliRunner().invoke(main, ["chat", *map(str, words)], input=given)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_picture(tmp_path / "a.png")


def test_one_question_prints_the_answer_alone(checkpoint: Path, image: Path) -> None:
    words = (checkpoint, "--image", image, "--max-new-tokens", 5)
    done = run(*words, "what is this?")
    assert done.exit_code == 0
    assert done.stdout.endswith("\n")
    assert done.stderr in ("", "cut at 5 tokens (--max-new-tokens)\n")
    piped = run(*words, given="what is this?\n")
    assert (piped.exit_code, piped.stdout) == (0, done.stdout)
    found = json.loads(run(*words, "what is this?", "--json").stdout)
    assert found["answer"] == done.stdout.strip()
    assert found["finish"] in ("stop", "length")
    assert 1 <= found["tokens"] <= 5
    without = json.loads(run(*words[:1], "what is this?", *words[3:], "--json").stdout)
    assert without["prompt_tokens"] < found["prompt_tokens"]


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        (["{none}", "why?"], "", "there is no checkpoint"),
        (["{checkpoint}"], "  \n", "there is no question"),
        (["{checkpoint}", ""], "", "there is no question"),
        (["{checkpoint}"], b"\xff\xfe", "is not UTF-8 text"),
        (["{checkpoint}", "why?", "--image", "none.png"], "", "none.png cannot be read"),
        (["{checkpoint}", "why?", "--image", "http://127.0.0.1/a.png"], "", "--allow-urls"),
        (
            ["{checkpoint}", "why?", "--allow-urls", "--image", "http://127.0.0.1/a.png"],
            "",
            "is no public address",
        ),
        (["{checkpoint}", "why?", "--temperature", "-1"], "", "temperature is -1.0"),
        (["{checkpoint}", "why?", "--max-new-tokens", "99999"], "", "read and written here"),
    ],
)
def test_what_cannot_be_answered_leaves_standard_output_empty(
    checkpoint: Path, tmp_path: Path, words: list[str], given: str | bytes, said: str
) -> None:
    places = {"{none}": f"{tmp_path}/none", "{checkpoint}": str(checkpoint)}
    done = run(*(places.get(word, word) for word in words), given=given)
    assert (done.exit_code, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


class InTerminal:
    """The program in a pseudo-terminal."""

    def __init__(self, *words: object, home: Path) -> None:
        self.pid, self.place = pty.fork()
        if not self.pid:
            os.environ |= {"XDG_STATE_HOME": str(home), "TERM": "xterm"}
            os.execv(sys.executable, [sys.executable, "-m", "siqvl", "chat", *map(str, words)])
        self.seen = ""

    def until(self, wanted: str) -> str:
        """What is shown until a text comes."""
        end = time.monotonic() + SECONDS
        while not re.search(wanted, self.seen):
            assert time.monotonic() < end, self.seen
            if select.select([self.place], [], [], 1)[0]:
                self.seen += os.read(self.place, 4096).decode(errors="replace")
        found, self.seen = self.seen, ""
        return found

    def type(self, text: str) -> None:
        os.write(self.place, text.encode())

    def end(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.place)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.integration
def test_a_conversation_in_a_terminal(checkpoint: Path, image: Path, tmp_path: Path) -> None:
    # drawn so far from what is likely, an answer does not end soon
    long = ("--max-new-tokens", 400, "--temperature", 5)
    terminal = InTerminal(checkpoint, *long, home=tmp_path)
    terminal.until(r"/help lists what can be typed[\s\S]*> ")
    terminal.type(f"{image} \n")
    terminal.until(r"picture 1 of the next question: a\.png, 24 × 16[\s\S]*> ")
    terminal.type("what is this?\n")
    terminal.until(r"is this\?\r\n")
    terminal.until("[A-Za-z]{2}")  # something of the answer
    terminal.type("\x03")
    assert "stopped" in terminal.until(r"tokens/s[\s\S]*> ")
    time.sleep(0.5)  # readline waits for keys
    terminal.type("\x03")
    terminal.until(r"Ctrl-D or /quit ends[\s\S]*> ")
    terminal.type("/max-tokens 3\n")
    terminal.until(r"max-tokens is 3[\s\S]*> ")
    terminal.type("and now?\n")
    terminal.until(r"3 tokens, [\d,.]+ tokens/s[\s\S]*> ")
    terminal.type("\x1b[A")  # the last line comes back
    terminal.until(r"and now\?")
    terminal.type("\n")
    terminal.until(r"tokens/s[\s\S]*> ")
    terminal.type("\x04")
    assert terminal.end() == 0
    kept = tmp_path / "siqvl" / "chat_history"
    assert "what is this?" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.integration
def test_ctrl_c_ends_one_question_with_130(checkpoint: Path) -> None:
    words = [sys.executable, "-m", "siqvl", "chat", str(checkpoint), "why?"]
    drawn = ["--max-new-tokens", "400", "--temperature", "3"]
    with subprocess.Popen([*words, *drawn], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        assert done.stdout is not None
        done.stdout.read(1)
        done.send_signal(signal.SIGINT)
        _, said = done.communicate(timeout=SECONDS)
    assert (done.returncode, said) == (130, b"")
