"""The tutorial of docs/using.md, as it stands: own pictures to a model that answers."""

import csv
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image, ImageDraw

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
TUTORIAL = PAGE.split("\n## Your own pictures")[1].split("\n## ")[0]
COLORS = ("red", "blue", "green", "purple")
PICTURES = 40
SECONDS = 600


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL, re.DOTALL | re.MULTILINE)
    return found


def make_data(folder: Path) -> None:
    """Squares of four colours; the table begins as the page shows."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,question,answer"]
    for number in range(PICTURES):
        color = COLORS[number % len(COLORS)]
        made = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(made).rectangle((16, 16, 48, 48), fill=color)
        made.save(folder / "images" / f"{number}.png")
        lines.append(f"images/{number}.png,what color is the square?,{color}")
    table = "\n".join(lines) + "\n"
    assert table.startswith(block("csv"))
    (folder / "questions.csv").write_text(table)


def commands() -> list[str]:
    return block("bash").replace("\\\n", " ").splitlines()


@contextmanager
def served(folder: Path, env: dict[str, str]) -> Iterator[int]:
    """The page's server, at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*block("sh").split()[1:], "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "siqvl", *words], cwd=folder, env=env)
    try:
        end = time.monotonic() + SECONDS
        while not ready(port):
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait(60)


def ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_the_tutorial(tmp_path: Path) -> None:
    for name in ("siqvl", "tasks", "workflows", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    make_data(tmp_path / "my_data")
    (tmp_path / "mine.yaml").write_text(block("yaml"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    kept["PATH"] = f"{Path(sys.executable).parent}:{kept['PATH']}"
    kept["PYTHONPATH"] = str(ROOT)
    printed = {}
    for command in commands():
        words = command.replace("siqvl ", f"{sys.executable} -m siqvl ", 1)
        words = words if command.startswith("siqvl ") else command
        done = subprocess.run(
            words,
            shell=True,
            cwd=tmp_path,
            env=kept,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        printed[" ".join(command.split()[:2])] = done.stdout
    with open(tmp_path / "answers.csv", newline="", encoding="utf-8") as file:
        lines = [*csv.DictReader(file)]
    assert len(lines) == PICTURES
    assert lines[1]["expected"] == '["blue"]'
    assert all(line["answer"] and not line["error"] for line in lines)
    # the same model, asked in two ways
    assert printed["siqvl chat"].strip() == lines[0]["answer"]
    assert printed["siqvl answer"].startswith(f"{PICTURES} answers: answers.csv\n")
    with served(tmp_path, kept) as port:
        asked = block("python").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        done = subprocess.run(
            [sys.executable, "-c", asked],
            cwd=tmp_path,
            env=kept | {"NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.stdout.strip() == lines[0]["answer"], done.stderr
