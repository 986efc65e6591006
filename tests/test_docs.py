"""What docs/data.md tells a reader to do, done."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from siqvl.data import sources
from siqvl.data.manifest import Manifest
from siqvl.recipe import DataPrep, SFTStage, Source

ROOT = Path(__file__).parent.parent
DATA = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return DATA.split(f"\n## {title}\n")[1].split("\n## ")[0]


def block(text: str, language: str) -> str:
    """The only block of a language in a section."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
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


def test_every_kind_is_in_the_table_of_sources() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", section("Sources"), flags=re.MULTILINE)
    listed = {kind for row in rows for kind in re.findall(r"`(\w+)`", row)}
    assert listed == set(sources.SOURCES)


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


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", DATA))
def test_links_are_there(target: str) -> None:
    assert target.startswith("http") or (ROOT / "docs" / target).resolve().exists()


def test_pictures_it_shows_are_there_and_small() -> None:
    shown = [
        page.parent / name
        for page in (ROOT / "docs").glob("*.md")
        for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert set(shown) == set((ROOT / "docs" / "images").glob("*"))
    for path in shown:
        assert path.stat().st_size <= 200_000, path
        with Image.open(path) as picture:
            assert picture.width == 1400
