"""Which code made an artifact."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def code_version() -> str:
    """`0.1.0+<git sha>[.dirty]`; the sha is SIQVL_GIT_SHA (set in the image) or git's."""
    try:
        release = version("siqvl")
    except PackageNotFoundError:  # run from a plain checkout
        release = "0.0.0"
    sha = os.environ.get("SIQVL_GIT_SHA") or git_sha()
    return f"{release}+{sha}" if sha else release


@cache
def git_sha() -> str:
    """The commit of this checkout, with `.dirty` where something has changed; "" without git."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        sha = _git(root, "rev-parse", "--short=12", "HEAD")
        return f"{sha}.dirty" if _git(root, "status", "--porcelain") else sha
    except (OSError, subprocess.SubprocessError):  # no git, or no commit yet
        return ""


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
