"""The page escapes what data says, shows what was found, and fits on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from siqvl.look.doubts import MOST
from siqvl.look.look_page import in_terminal, printable, render_look
from siqvl.look.looked import Looked
from tests.look.conftest import clean_rows
from tests.page.test_render import EVIL, Read
from tests.report.test_screens import BROWSERS, bands, measure, shoot

Look = Callable[..., Looked]
TOO_LONG = "A" * 5_000


@pytest.fixture
def evil(looked: Look) -> Looked:
    rows = [row | {EVIL: EVIL} for row in clean_rows()]
    rows[0]["question"] = EVIL
    rows[1] |= {"answer": EVIL, "question": "x"}
    rows[2]["question"] = TOO_LONG
    rows[3]["image"] = EVIL
    return looked(rows)


def test_texts_cannot_become_markup(evil: Looked) -> None:
    page = Read(render_look(EVIL, [evil, evil], EVIL))
    assert "script" not in page.tags
    assert not {name for name, _ in page.attributes} & {"onload", "onerror"}
    assert page.tags.count("img") == 2 * sum(len(one.pictures) for one in evil.examples)
    assert page.tags.count("style") == 1
    targets = [value or "" for name, value in page.attributes if name in ("src", "href")]
    assert all(target.startswith(("data:image/", "#")) for target in targets)
    assert EVIL in page.text
    assert TOO_LONG not in page.text


def test_sentences_stand_on_the_page_and_three_of_them_first(evil: Looked) -> None:
    assert len(evil.doubts) >= 2
    two = [evil, evil]
    page = Read(render_look("set", two, "")).text
    assert all(doubt.text.replace("`", "") in page for doubt in evil.doubts)
    printed = [*in_terminal(two)]
    told = printed[printed.index("What looks wrong:") + 1 :]
    assert len(told) == MOST + 1
    assert told[-1] == f"  … and {2 * len(evil.doubts) - MOST} more on the page."


def test_a_terminal_is_not_steered(looked: Look) -> None:
    rows = clean_rows()
    rows[0]["question"] = "\x1b[2J\x1b]0;owned\x07 red\u202e\r\nWhich?"
    printed = "\n".join(in_terminal([looked(rows)]))
    assert not {"\x1b", "\x07", "\r", "\u202e"} & {*printed}
    assert "[2J ]0;owned red Which?" in printed
    assert printable("a\n\tb\x00c") == "a b c"


@pytest.mark.integration
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(width: int, evil: Looked, tmp_path: Path) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser to look with: none of {', '.join(BROWSERS)} is installed")
    page = tmp_path / "look.html"
    page.write_text(render_look("a" * 300, [evil], "no recipe"), encoding="utf-8")
    measured = measure(browser, page, tmp_path, width)
    assert measured.width == width
    assert measured.cut == 0, measured.first
    assert min(bands(shoot(browser, page, tmp_path, 500, 1500), 4)) > 5
