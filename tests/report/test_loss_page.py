"""A stage's loss curve as a page of its own."""

import json
import re
from pathlib import Path

from siqvl.checkpoint import HISTORY, read_history
from siqvl.report.loss_page import loss_page
from siqvl.report.pipeline_page import PAGE


def test_the_page_needs_no_other_file_and_draws_what_was_logged(made) -> None:
    checkpoint = made.checkpoints[1]
    page = loss_page(checkpoint)
    assert "<title>SiQ" not in page
    assert "<title>tiny, VQA SFT</title>" in page
    assert not re.search(r"(src|href)=|url\(|<script|\$\w", page)
    assert page.count("<polyline") == 2
    losses = [entry["loss"] for entry in read_history(checkpoint)]
    raw = re.search(r'class="raw" points="([^"]+)"', page)[1].split()
    # on its logarithmic axis the highest place is that of the largest loss that is drawn
    every = -(-len(losses) // 500)
    drawn = [*losses[:-1:every], losses[-1]]
    heights = [float(place.split(",")[1]) for place in raw]
    assert heights.index(min(heights)) == drawn.index(max(drawn))
    assert len(heights) == len(drawn)


def test_a_checkpoint_without_history_says_so(made, tmp_path: Path) -> None:
    checkpoint = made.checkpoints[0]
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / HISTORY).write_text(json.dumps([]))
    assert "keeps no loss of two steps" in loss_page(tmp_path)
    assert PAGE != "loss.html"
