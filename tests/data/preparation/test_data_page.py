"""The report shows rows as they are, and nothing in them is taken for markup."""

import base64
import io
import re
from collections import Counter
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from siqvl.data.manifest import Spread
from siqvl.data.preparation.distinct_pictures import HeldOut
from siqvl.data.preparation.prepare import prepare
from siqvl.data.preparation.tally import Examples
from siqvl.data.schema import RowKind, message
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import encoded


class Collector(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("kind", list(RowKind))
def test_it_shows_twelve_examples_with_pictures(tmp_path, kind):
    sources = [Source(kind="shapes", max_samples=100)]
    manifest = prepare(sources, kind, tmp_path / "out", data=DataPrep(), seed=0)
    page = Collector((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == 12
    assert manifest.fingerprint in page.text
    assert "None: every row was good." in page.text
    numbers = {int(n) for n in re.findall(r"shapes/train/\w+/0-0000(\d\d)", page.text)}
    assert max(numbers) > 15  # spread over all rows: families take turns, so 25 of each


def test_texts_are_no_markup_and_the_left_out_are_listed(tmp_path, made_source, make_row):
    good = make_row(prompt=[message("user", "<script>alert(1)</script> & more")])
    rows = [good, make_row(number=1, images=[b"x"])]
    data = DataPrep(max_quarantined=0.9)
    prepare([made_source(rows)], RowKind.SFT, tmp_path / "out", data=data, seed=0)
    page = Collector((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "<script>alert(1)</script> & more" in page.text
    assert "undecodable image" in page.text
    assert "made/1 no format that is read" in page.text  # the first of them, and why


def test_leaks_and_left_out_rows_are_listed(tmp_path, made_source, make_row):
    question = make_row(RowKind.EVALUATION, 0x101010)
    folder = tmp_path / "benchmarks"
    prepare([made_source([question])], RowKind.EVALUATION, folder / "made", data=DataPrep(), seed=0)
    held_out = HeldOut({"made": folder / "made"}, ["benchmark `gone` cannot be prepared: lost"])
    rows = [make_row(number=0x101010), *(make_row(number=n, id=str(n)) for n in (0x111111, 7, 7))]
    rows[3]["id"] = "again"
    data, out = DataPrep(near=1.0), tmp_path / "out"
    prepare([made_source(rows)], RowKind.SFT, out, data=data, seed=0, benchmarks=held_out)
    text = Collector((out / "report.html").read_text(encoding="utf-8")).text
    assert "madewith similar ones" not in text
    assert "similar onesmade11" in text  # one row exactly, one nearly
    assert "duplicate1again" in text
    assert "The check ran in part: benchmark `gone` cannot be prepared: lost." in text
    assert f"picture of benchmark made1made/{0x101010} the picture of made/{0x101010}" in text


@pytest.mark.parametrize(
    ("values", "bins"),
    [
        ([8, 8, 8], [(8, 8, 3)]),
        ([1, 2, 2, 4], [(1, 1, 1), (2, 2, 2), (3, 3, 0), (4, 4, 1)]),
        ([*range(48)], [(2 * n, 2 * n + 1, 2) for n in range(24)]),
        # one value in a hundred is far out: it has a bar of its own, and the others their shape
        ([*range(10)] * 20 + [10**6], [*((n, n, 20) for n in range(10)), (10, 10**6, 1)]),
    ],
)
def test_histograms(values, bins):
    spread = Spread.of(Counter(values))
    assert spread.bins == bins
    assert sum(height for _, _, height in spread.bins) == spread.count == len(values)


def test_spreads_equal_those_of_numpy():
    values = np.random.default_rng(0).integers(0, 1_000, 501)
    spread = Spread.of(Counter(values.tolist()))
    assert (spread.minimum, spread.maximum) == (values.min(), values.max())
    assert (spread.total, spread.mean) == (values.sum(), round(values.mean(), 3))
    assert spread.median == np.median(values)
    assert spread.p95 == np.quantile(values, 0.95, method="higher")


def test_large_pictures_are_shown_smaller(tmp_path, made_source, make_row):
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    row = make_row(images=[encoded(Image.fromarray(pixels))])
    prepare([made_source([row])], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    shown = base64.b64decode(re.search(r"data:image/jpeg;base64,([^\"]+)", page).group(1))
    assert Image.open(io.BytesIO(shown)).size == (640, 480)


@pytest.mark.parametrize("total", [0, 1, 12, 13, 24, 25, 100, 1000])
def test_examples_are_spread(total):
    examples = Examples(12)
    for number in range(total):
        examples.offer(partial(dict, id=number))
    found = [row["id"] for row in examples.rows]
    assert len(found) == min(total, 12)
    assert found == sorted(set(found))
    if total >= 100:
        assert found[-1] > total * 0.6
