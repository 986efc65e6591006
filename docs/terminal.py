"""Records a conversation with a checkpoint in a real terminal, as the picture docs/images/chat.svg.

python -m docs.terminal CHECKPOINT [FILE]

The program runs in a pseudo-terminal, lines are typed one after the other, and what it shows is
drawn as it stands, figures too. The picture that is talked about is made here.
"""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import tempfile
import time
from html import escape
from pathlib import Path

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.recipe import Source

ROOT = Path(__file__).parent.parent
IMAGE = ROOT / "docs" / "images" / "chat.svg"
SEED = 0  # of the pictures that are talked about
SECONDS = 120  # that an answer may take
#: What is typed: a question of one look and one of several steps, each with its picture.
LINES = [
    "/image {vqa_picture}",
    "{vqa}",
    "/reset",
    "/image {reasoning_picture}",
    "{reasoning} Think step by step, then answer after 'Answer:'.",
    "/temperature 2",
    "/help",
    "/quit",
]
#: What steers a terminal, but for the one that is drawn: faint, and no longer so.
STEERING = re.compile(r"\x1b\[(?!2m|0m)[0-9;?]*[A-Za-z]|\x1b[=>]|\x07")
COLUMNS, SIZE, HEIGHT = 92, 14, 20


def main() -> None:
    checkpoint = sys.argv[1]
    file = Path(sys.argv[2]) if len(sys.argv) > 2 else IMAGE
    with tempfile.TemporaryDirectory() as folder:
        said = {}
        for family in ("vqa", "reasoning"):
            source = Source(kind="shapes", subsets=[family], split="test", max_samples=1)
            (row,) = sources.rows(source, RowKind.EVALUATION, SEED)
            row["images"][0].save(Path(folder, f"{family}.png"))
            said |= {family: row["question"], f"{family}_picture": f"{family}.png"}
        shown = record(checkpoint, [line.format(**said) for line in LINES], Path(folder))
    print(re.sub(r"\x1b\[[02]m", "", shown))
    file.write_text(drawn(shown), encoding="utf-8")


def record(checkpoint: str, lines: list[str], folder: Path) -> str:
    """What the terminal shows while lines are typed."""
    checkpoint = str(Path(checkpoint).resolve()) if Path(checkpoint).exists() else checkpoint
    pid, place = pty.fork()
    if not pid:
        os.chdir(folder)
        os.environ |= {"TERM": "xterm", "XDG_STATE_HOME": str(folder), "COLUMNS": str(COLUMNS)}
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        program = [sys.executable, "-m", "siqvl", "chat", checkpoint, "--max-new-tokens", "160"]
        os.execv(sys.executable, program)
    shown = ""
    for line in lines:
        shown += _until_prompt(place)
        for one in f"{line}\n":
            os.write(place, one.encode())
    shown += _until_prompt(place, ends=True)
    os.waitpid(pid, 0)
    os.close(place)
    return f"$ siqvl chat {Path(checkpoint).name}\n" + _screen(shown)


def _until_prompt(place: int, *, ends: bool = False) -> str:
    """What is shown until the next line can be typed, or until the program ends."""
    seen, end = "", time.monotonic() + SECONDS
    while ends or not STEERING.sub("", seen).endswith("> "):
        if time.monotonic() > end:
            raise TimeoutError(f"the program does not go on after:\n{seen}")
        if select.select([place], [], [], 0.2)[0]:
            try:
                read = os.read(place, 4096)
            except OSError:  # the program has ended
                return seen
            if not read:
                return seen
            seen += read.decode(errors="replace")
    return seen


def _screen(shown: str) -> str:
    """Lines as they stand at the end: what is written over, as a typed line is, is not there."""
    lines, is_faint = [], False
    for line in STEERING.sub("", shown).replace("\r\n", "\n").strip().split("\n"):
        line = ("\x1b[2m" if is_faint else "") + line.rpartition("\r")[2]
        is_faint = line.rfind("\x1b[2m") > line.rfind("\x1b[0m")
        lines.append(line)
    return "\n".join(lines)


def drawn(shown: str) -> str:
    """The terminal as an SVG picture."""
    lines = [part for line in shown.split("\n") for part in _wrapped(line)]
    width, height = int(COLUMNS * SIZE * 0.602) + 40, len(lines) * HEIGHT + 44
    texts = []
    for number, line in enumerate(lines):
        kind = "said"
        if "\x1b[2m" in line:
            kind = "faint"
        elif line.startswith(("> ", "$ ")):
            kind = "typed"
        text = escape(re.sub(r"\x1b\[[02]m", "", line))
        at = 34 + number * HEIGHT
        texts.append(f'<text x="20" y="{at}" class="{kind}" xml:space="preserve">{text}</text>')
    style = (
        f"text {{ font: {SIZE}px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace }} "
        ".said { fill: #1f2328 } .faint { fill: #59636e } .typed { fill: #0550ae } "
        ".panel { fill: #ffffff; stroke: #d1d9e0 }"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-labelledby="title">\n'
        '<title id="title">A conversation with a checkpoint in a terminal</title>\n'
        f"<style>{style}</style>\n"
        f'<rect class="panel" x="1" y="1" width="{width - 2}" height="{height - 2}" rx="8"/>\n'
        + "\n".join(texts)
        + "\n</svg>\n"
    )


def _wrapped(line: str) -> list[str]:
    """A line as a terminal breaks it, each part as faint as it was."""
    is_faint = "\x1b[2m" in line
    plain = re.sub(r"\x1b\[[02]m", "", line)
    parts = [plain[at : at + COLUMNS] for at in range(0, max(len(plain), 1), COLUMNS)]
    return [f"\x1b[2m{part}\x1b[0m" if is_faint else part for part in parts]


if __name__ == "__main__":
    main()
