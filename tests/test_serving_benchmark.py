"""The load test asks what it says, and finds what is wrong."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.serving.__main__ import main
from benchmarks.serving.asked import large_pictures, of_all_kinds, with_one_picture
from benchmarks.serving.clients import ask_all


def test_questions_are_of_mixed_lengths_and_all_different() -> None:
    questions = with_one_picture(40)
    assert len({one.pictures for one in questions}) == 40
    assert len({one.tokens for one in questions}) > 20
    assert {len(one.pictures) for one in of_all_kinds(9)} == {0, 1, 3}
    assert {len(one.turns) for one in of_all_kinds(9)} == {1, 3}
    assert [one.pictures for one in with_one_picture(40)] == [one.pictures for one in questions]


def test_large_pictures_have_49_megapixels() -> None:
    (one,) = large_pictures(1)
    data = base64.b64decode(one.pictures[0].partition(",")[2])
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.width * picture.height == 49_000_000


def test_what_nobody_answers_is_an_error() -> None:
    told = asyncio.run(ask_all("http://127.0.0.1:9", "none", with_one_picture(3), 2))
    assert [one.number for one in told] == [0, 1, 2]
    assert all(one.error for one in told)


@pytest.mark.integration
def test_a_small_load(tmp_path: Path) -> None:
    options = ["--model", "tiny", "--clients", "4", "--requests", "40", "--different", "10"]
    parts = ["--what", "load", "--what", "kinds", "--what", "faults", "--what", "kill"]
    done = CliRunner().invoke(main, [*options, *parts, "--work", str(tmp_path)])
    assert done.exit_code == 0, done.output
    errors = re.findall(r"errors: (\d+)", done.output)
    different = re.findall(r"(?:single one|different): (\d+)", done.output)
    assert errors == different == ["0"] * 4
    assert "SIGTERM: exit code 0; faults in the log: 0" in done.output
    assert "kill -9 within 10 requests" in done.output
