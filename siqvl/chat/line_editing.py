"""Lines are edited with readline where there is one; what was typed comes back another day."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from siqvl.chat.typed_line import COMMANDS
from siqvl.files import expanded

LINES = 1000  # that are kept


def history_file() -> Path:
    """Where lines are kept: in XDG_STATE_HOME, or the user's own folder for such things."""
    return expanded(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "siqvl" / "chat_history"


@contextmanager
def edited_lines() -> Iterator[None]:
    """Has `input` edit lines, complete commands and paths, and know those of earlier days."""
    try:
        import readline
    except ImportError:  # a Python without it: lines are typed as the terminal has them
        yield
        return
    file = history_file()
    readline.set_completer_delims(" \t\n")
    readline.set_completer(_completion)
    readline.parse_and_bind("tab: complete")
    readline.set_history_length(LINES)
    readline.clear_history()
    with suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        with suppress(OSError):  # a home that is read-only
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(file)


def _completion(text: str, number: int) -> str | None:
    names = [f"/{name} " for name in COMMANDS if f"/{name}".startswith(text)] if text else []
    paths = glob.glob(glob.escape(os.path.expanduser(text)) + "*")
    found = names + [f"{path}/" if os.path.isdir(path) else path for path in sorted(paths)]
    return found[number] if number < len(found) else None
