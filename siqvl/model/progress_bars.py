"""Bars of transformers and huggingface_hub ("Loading weights"): for terminals, not for logs."""

from __future__ import annotations

import sys

from transformers.utils import logging


def bars_on_terminals_alone() -> None:
    """Have no bars in this process from now on, unless stderr is a terminal."""
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
