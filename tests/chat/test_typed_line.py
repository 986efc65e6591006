"""Lines as they are typed, and paths as terminals write those that are dragged."""

import shlex
from pathlib import Path
from urllib.parse import quote

import pytest

from siqvl.chat.typed_line import COMMANDS, Typed, read_line
from siqvl.errors import UserError
from tests.answers.conftest import write_picture

NAMES = ["a.png", "with space.jpg", 'it\'s "so" (1).PNG', "été 100%.webp", "back\\slash.png"]


@pytest.mark.parametrize("name", NAMES)
def test_a_dragged_path_in_each_way_of_writing_it(tmp_path: Path, name: str) -> None:
    file = str(write_picture(tmp_path / name))
    escaped = "".join(f"\\{one}" if one in " '\"()\\" else one for one in file)
    ways = [escaped, f"file://{quote(file)}"]
    ways += [f"'{file}'"] if "'" not in file else []
    ways += [f'"{file}"'] if '"' not in file else []
    for way in ways:
        for line in (way, f"{way} ", f"{way} what is this?", f"what is this? {way}"):
            text = "what is this?" if "what" in line else ""
            assert read_line(line) == Typed("", text, (file,)), line


def test_several_are_shown_in_their_order(tmp_path: Path) -> None:
    files = [str(write_picture(tmp_path / name)) for name in ("b.png", "a b.png", "c.png")]
    line = f"compare {files[0]} with {shlex.quote(files[1])} and {files[2]}"
    assert read_line(line) == Typed("", "compare with and", tuple(files))


def test_what_is_no_picture_stays_text(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    for line in (
        f"what is in {tmp_path}/notes.txt?",
        f"is {tmp_path}/none.png there?",
        "what does 'a.png' mean, or and/or.png?",
        "either / or",
        "it's the cat's",
        "two  spaces\tstay",
        f"{'/x' * 5000}.png",
    ):
        assert read_line(line) == Typed("", line)


def test_a_path_at_the_front_is_no_command(tmp_path: Path) -> None:
    file = str(write_picture(tmp_path / "a.png"))
    assert read_line(f"{file} what?").pictures == (file,)


@pytest.mark.parametrize("name", [one for one in COMMANDS if one != "image"])
def test_commands(name: str) -> None:
    assert read_line(f" /{name}  ") == Typed(name)
    assert read_line(f"/{name} be brief  and clear ") == Typed(name, "be brief  and clear")


def test_pictures_by_command(tmp_path: Path) -> None:
    spaced = str(write_picture(tmp_path / "a b.png"))
    plain = str(write_picture(tmp_path / "c.png"))
    assert read_line(f"/image {spaced}").pictures == (spaced,)
    assert read_line(f"/image '{spaced}' {plain}").pictures == (spaced, plain)
    escaped = spaced.replace(" ", "\\ ")
    assert read_line(f"/image {escaped} file://{plain}").pictures == (spaced, plain)
    assert read_line("/image none.png").pictures == ("none.png",)  # which is said to be missing
    assert read_line("/image https://x.test/a").pictures == ("https://x.test/a",)
    with pytest.raises(UserError, match="needs a file"):
        read_line("/image")


def test_an_address_of_a_picture_counts_as_dragged() -> None:
    url = "https://x.test/a%20b.png?size=1"
    assert read_line(f"{url} what?") == Typed("", "what?", (url,))
    assert read_line("see https://x.test/page") == Typed("", "see https://x.test/page")


def test_an_unknown_command_is_said() -> None:
    with pytest.raises(UserError, match="there is no command /rset"):
        read_line("/rset")
