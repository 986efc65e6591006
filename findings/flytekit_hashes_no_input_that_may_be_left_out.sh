#!/usr/bin/env bash
# flytekit 1.16.31: an input that may be left out cannot have a content hash; where one writes it decides what breaks.
#
# Flyte's cache goes by a directory's address unless its type says `Annotated[FlyteDirectory, HashMethod(…)]`. For an
# input that may be left out there are two places for that:
# - inside, `Optional[Annotated[FlyteDirectory, HashMethod(…)]] = None`: the hash is never computed. Changed content at
#   the same address is a cache hit, and a copy at another address a miss.
# - around, `Annotated[Optional[FlyteDirectory], HashMethod(…)] = None`: the hash is computed, and the input is required:
#   a workflow that leaves it out does not compile, in spite of the default, as flytekit looks for Optional at the
#   outside only.
# One would guess that both mean the same, and either works. What is left is a required input, or a hash that travels as
# an input of its own.
#
# Seen on 2026-11-29, Python 3.11.7, Linux x86-64:
#
#   plain: hash of content, required
#   inside: no hash, may be left out
#   around: hash of content, required
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check flytekit==1.16.31

cat > look.py <<'PYTHON'
import logging
from pathlib import Path
from typing import Annotated, Optional

from flytekit import FlyteContextManager, HashMethod, task, workflow
from flytekit.core.type_engine import TypeEngine
from flytekit.types.directory import FlyteDirectory

logging.disable(logging.CRITICAL)


def content(directory: Optional[FlyteDirectory]) -> str:
    return "nothing" if directory is None else (Path(directory.path) / "file").read_text()


Plain = Annotated[FlyteDirectory, HashMethod(content)]
Inside = Optional[Annotated[FlyteDirectory, HashMethod(content)]]
Around = Annotated[Optional[FlyteDirectory], HashMethod(content)]


@task
def plain(directory: Plain) -> int:
    return 1


@task
def inside(directory: Inside = None) -> int:
    return 1


@task
def around(directory: Around = None) -> int:
    return 1


def flow_plain() -> int:
    return plain()


def flow_inside() -> int:
    return inside()


def flow_around() -> int:
    return around()


def hash_of(kind: object) -> str:
    context = FlyteContextManager.current_context()
    expected = TypeEngine.to_literal_type(kind)
    found = TypeEngine.to_literal(context, FlyteDirectory("data"), kind, expected).hash
    return {"content": "hash of content", None: "no hash"}[found]


def left_out(flow: object) -> str:
    try:
        workflow(flow).compile()
    except Exception as error:
        assert "directory" in str(error), error
        return "required"
    return "may be left out"


Path("data").mkdir()
Path("data/file").write_text("content")
print(f"plain: {hash_of(Plain)}, {left_out(flow_plain)}")
print(f"inside: {hash_of(Inside)}, {left_out(flow_inside)}")
print(f"around: {hash_of(Around)}, {left_out(flow_around)}")
PYTHON
venv/bin/python look.py > seen 2> said || { cat said; exit 1; }
cat seen
diff seen - <<'SEEN'
plain: hash of content, required
inside: no hash, may be left out
around: hash of content, required
SEEN
