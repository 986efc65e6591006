"""Writes what importlib.metadata tells of SiQ-VL: its name and version, without building it.

python docker/metadata.py pyproject.toml FOLDER

A `pip install` would fetch build tools that no lock file names, and put an empty package `siqvl`
into the venv.
"""

import sys
import tomllib
from pathlib import Path


def write_metadata(pyproject: Path, folder: Path) -> None:
    """Make `<name>-<version>.dist-info` in a folder that will be on the Python path."""
    project = tomllib.loads(pyproject.read_text())["project"]
    name, version = project["name"], project["version"]
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


if __name__ == "__main__":
    write_metadata(Path(sys.argv[1]), Path(sys.argv[2]))
