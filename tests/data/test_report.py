"""The report shows rows as they are, and nothing in them is taken for markup."""

import re
from functools import partial
from html.parser import HTMLParser

import pytest

from siqvl.data.prepare import prepare
from siqvl.data.schema import RowKind, message
from siqvl.data.tally import Examples
from siqvl.recipe import DataPrep, Source


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
    assert "Nothing: every row was good." in page.text
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
