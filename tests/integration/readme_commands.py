"""The README's commands that talk to a cluster, as words."""

import re
import shlex
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Every such line, joined where it goes on in the next."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if "pyflyte -c flyte.config" in line]


def pipeline() -> list[str]:
    """The one that runs the whole pipeline."""
    (words,) = [words for words in commands() if {"run", "full_pipeline"} <= {*words}]
    return words
