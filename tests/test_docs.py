"""What the docs tell a reader to do, done; and what they name and show, there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from siqvl.chat.typed_line import COMMANDS
from siqvl.cli.look import look
from siqvl.cli.main import main
from siqvl.data import sources
from siqvl.data.manifest import Manifest
from siqvl.data.sources.reading.message_fields import MESSAGE_FIELDS
from siqvl.data.sources.reading.turns import ROLES
from siqvl.recipe import DataPrep, SFTStage, Source
from tests.test_imports import EDGES, FLOORS

ROOT = Path(__file__).parent.parent
DATA = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
#: Every page, by its path in the repository.
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / folder / "README.md" for folder in (".", "findings", "recipes/tiny_base")),
    )
}
SVG = "{http://www.w3.org/2000/svg}"


def section(title: str) -> str:
    return DATA.split(f"\n## {title}\n")[1].split("\n## ")[0]


def block(text: str, language: str) -> str:
    """The only block of a language in a section."""
    blocks = re.findall(r"^```(.*?)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    (found,) = [content for name, content in blocks if name == language]
    return found


def test_bring_your_own_data(tmp_path: Path) -> None:
    """The table, the recipe and the command of that section, in a copy of the code."""
    text = section("Bring your own data")
    for name in ("siqvl", "tasks", "workflows", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    table = tmp_path / "my_data" / "questions.csv"
    (table.parent / "images").mkdir(parents=True)
    table.write_text(block(text, "csv"))
    for name, color in (("cat", "gray"), ("bus", "red")):
        Image.new("RGB", (64, 64), color).save(table.parent / "images" / f"{name}.jpg")
    (tmp_path / "mine.yaml").write_text(block(text, "yaml"))

    pyflyte = shutil.which("pyflyte", path=str(Path(sys.executable).parent)) or "pyflyte"
    command = block(text, "bash").replace("pyflyte", pyflyte, 1)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = Path(re.search(r"`(outputs/\S+report\.html)`", text)[1])
    assert (tmp_path / report).is_file()
    manifest = Manifest.read(tmp_path / report.parent)
    assert manifest.rows == 2
    assert manifest.quarantined == {}
    assert dict(manifest.top_answers) == {"a cat": 1, "red": 1}
    lines = [line for name in ("csv", "yaml", "bash") for line in block(text, name).splitlines()]
    assert len(lines) <= 10 + 1  # "bring your own data" in ten lines, and the table's heading


def test_look_before_anything_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of that section about the table and the recipe of the one before, one after
    the other, and what it says that the first one prints."""
    text, own = section("Look before anything is prepared"), section("Bring your own data")
    for name in ("siqvl", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "my_data" / "images").mkdir(parents=True)
    (tmp_path / "my_data" / "questions.csv").write_text(block(own, "csv"))
    for name, color in (("cat", "gray"), ("bus", "red")):
        Image.new("RGB", (64, 64), color).save(tmp_path / "my_data" / "images" / f"{name}.jpg")
    (tmp_path / "mine.yaml").write_text(block(own, "yaml"))
    monkeypatch.chdir(tmp_path)
    printed = []
    for line in block(text, "bash").splitlines():
        command, *words = shlex.split(line)
        done = CliRunner().invoke(main, words)
        assert (command, done.exit_code, done.stderr) == ("siqvl", 0, "")
        printed.append(done.stdout)
    assert printed[0] == block(text, "")
    assert "max_length is 512" in printed[1]
    assert (tmp_path / "look.html").is_file()
    assert "learnt" in (tmp_path / "outputs" / "look.html").read_text(encoding="utf-8")


def test_options_of_look_are_all_there() -> None:
    named = set(re.findall(r"`(--[a-z-]+)", section("Look before anything is prepared")))
    known = {name for option in look.params for name in option.opts if name.startswith("--")}
    assert named | {"--recipe", "--stage", "--output"} == known


@pytest.mark.parametrize(
    ("title", "command"), [("Chat", "chat"), ("Answer a whole data set", "answer")]
)
def test_options_that_a_section_names_are_its_commands(title: str, command: str) -> None:
    text = PAGES["docs/using.md"].split(f"\n## {title}\n")[1].split("\n## ")[0]
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))
    known = {name for option in main.commands[command].params for name in option.opts}
    assert named
    assert named <= known


def test_commands_that_are_typed_in_a_chat_are_in_its_table() -> None:
    text = PAGES["docs/using.md"].split("| typed | what it does |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", text, flags=re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`/([a-z-]+)", row)} == {*COMMANDS}


def test_every_kind_is_in_the_table_of_sources() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", section("Sources"), flags=re.MULTILINE)
    listed = {kind for row in rows for kind in re.findall(r"`(\w+)`", row)}
    assert listed == set(sources.SOURCES)


def test_every_column_of_messages_is_in_its_table() -> None:
    rows = re.findall(r"^\| [^|`]+ \| (.+) \|$", section("Conversations and pairs"), re.MULTILINE)
    listed = {column for row in rows for column in re.findall(r"`(\w+)`", row)}
    assert listed == {*MESSAGE_FIELDS, "question"}


def test_names_of_roles_are_those_that_are_known() -> None:
    (sentence,) = re.findall(
        r"A user is (.*?), in any case", section("Conversations and pairs"), re.S
    )
    assert {*re.findall(r"`(\w+)`", sentence)} == {*ROLES} - {"system"}


def test_keys_it_names_are_keys_of_the_recipe() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", section("Preparation"), flags=re.MULTILINE)
    named = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert named <= set(DataPrep.model_fields)
    prose = section("Mixtures") + section("Batches") + section("Cached features")
    keys = {"weight", "temperature", "max_steps", "epochs", "pack_length", "pack_images"}
    keys |= {"max_length", "max_images", "learn_turns", "cached_features"}
    known = {*SFTStage.model_fields, *Source.model_fields}
    for key in keys:
        assert f"`{key}" in prose
        assert key in known


def test_its_example_of_a_source_is_one() -> None:
    (source,) = yaml.safe_load(block(section("Sources"), "yaml"))["sources"]
    assert Source.model_validate(source).kind in sources.SOURCES


def _links() -> list[tuple[str, str]]:
    return [(page, to) for page, text in PAGES.items() for to in re.findall(r"\]\(([^)]+)\)", text)]


def _anchor(heading: str) -> str:
    """What a heading is linked by."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(("page", "target"), _links())
def test_links_are_there(page: str, target: str) -> None:
    if target.startswith("http"):
        return
    name, _, anchor = target.partition("#")
    path = (ROOT / page).parent / name if name else ROOT / page
    assert path.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert anchor in map(_anchor, headings)


@pytest.mark.parametrize("page", PAGES)
def test_files_and_modules_it_names_are_there(page: str) -> None:
    tops = "siqvl|tasks|workflows|tests|benchmarks|recipes|docker|docs|findings"
    named = re.findall(rf"(?<![\w./:-])((?:{tops})/[\w./-]*\w/?)", PAGES[page])
    assert [path for path in named if not (ROOT / path).exists()] == []
    modules = re.findall(r"python -m ([\w.]+)", PAGES[page])
    assert [name for name in modules if find_spec(name) is None] == []


def test_pictures_it_shows_are_there_and_small() -> None:
    shown = [
        (ROOT / page).parent / name
        for page, text in PAGES.items()
        for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    ]
    assert set(shown) == set((ROOT / "docs" / "images").glob("*"))
    for path in shown:
        assert path.stat().st_size <= 200_000, path
        if path.suffix == ".svg":
            continue
        with Image.open(path) as picture:
            assert picture.width == 1400


@pytest.mark.parametrize(
    "path", [*(ROOT / "docs" / "images").glob("*.svg")], ids=lambda path: path.name
)
def test_a_drawing_is_readable_anywhere(path: Path) -> None:
    """It lies on a ground of its own, so that its dark letters show on a dark page too."""
    drawing = ElementTree.parse(path).getroot()
    assert drawing.find(f"{SVG}title") is not None
    ground = drawing.find(f"{SVG}rect")
    assert ground is not None
    assert ground.get("class") == "panel"
    assert "fill: #ffffff" in path.read_text(encoding="utf-8")
    tags = {element.tag.removeprefix(SVG) for element in drawing.iter()}
    assert tags.isdisjoint({"script", "foreignObject", "image", "a", "use"})
    assert "@import" not in path.read_text(encoding="utf-8")


def test_rooms_are_drawn_in_the_order_of_their_imports() -> None:
    drawing = ElementTree.parse(ROOT / "docs" / "images" / "rooms.svg")
    height = {
        "".join(text.itertext()): float(text.get("y", 0))
        for text in drawing.iter(f"{SVG}text")
        if text.get("class") == "room"
    }
    library = [path for path in (ROOT / "siqvl").iterdir() if not path.name.startswith("__")]
    packages = {path.name for path in library if (path / "__init__.py").is_file()}
    modules = {path.stem for path in library if path.suffix == ".py"}
    assert packages <= set(height) <= {*FLOORS[1:], *packages, *modules}
    upward = [
        f"{importer}:{line} imports {imported}"
        for importer, imported, line in EDGES
        if {_room(importer), _room(imported)} <= set(height)
        and height[_room(importer)] > height[_room(imported)]
    ]
    assert upward == []


def _room(module: str) -> str:
    floor, room, *_ = module.split(".")
    return room if floor == "siqvl" else floor


def test_the_architecture_fits_one_screen() -> None:
    assert len(ARCHITECTURE.splitlines()) <= 60
    glossary = ARCHITECTURE.split("\n## Glossary\n")[1]
    words = re.findall(r"^\| (.+?) \|", glossary, flags=re.MULTILINE)[2:]
    assert 1 <= len(words) <= 12


def test_the_changelog_knows_this_version() -> None:
    (version,) = re.findall(
        r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", version]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "findings").glob("*.sh")), ids=lambda path: path.stem
)
def test_a_finding_has_the_form_that_its_readme_asks_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    if path.stem == "run_all":
        return
    assert re.search(r"pip install .*\w==\d", text)
    assert "mktemp -d" in text
    assert "siqvl" not in text.lower()
    head = text.split("\nset -e")[0]
    assert re.search(r"^# Seen on \d{4}-\d\d-\d\d", head, flags=re.MULTILINE)


def test_faults_are_each_shown_by_a_test() -> None:
    """Every row of the table of faults names a test that is there, and no two the same."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.split("| what happens | what one sees |")[1].split("\n\n")[0]
    named = re.findall(r"\]\(\.\./(tests/\S+)\): `(test_\w+)` \|$", table, re.MULTILINE)
    assert len(named) == len(set(named)) == len(table.splitlines()) - 2 > 10
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), (file, name)


def test_what_the_engine_does_is_each_shown_by_a_test() -> None:
    """Every row of that table; and every test that the page names with its file is there."""
    page = PAGES["docs/operations.md"]
    table = page.split("| what the engine does (Flyte 1.16.8) |")[1].split("\n\n")[0]
    shown = re.compile(r"\]\(\.\./(tests/\S+)\): `(test_\w+)`")
    rows = table.splitlines()[2:]
    assert len(rows) > 10
    assert [row for row in rows if not shown.search(row)] == []
    for file, name in shown.findall(page):
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), (file, name)
