"""Pages are escaped by their environment, whatever a template forgets, and look alike."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

import siqvl
from siqvl.data.manifest import Manifest, Shard, SourceRows
from siqvl.data.preparation.data_page import example, render_report
from siqvl.data.schema import RowKind
from siqvl.evaluation.evaluation_page import write_report
from siqvl.evaluation.scoring.scores import Result, Score, Scores, TypeScore
from siqvl.page.pictures import data_uri
from siqvl.page.render import environment, render, shortened
from siqvl.preferences.pairs_page import render_page
from siqvl.preferences.statistics import Sampling
from siqvl.recipe import SampledPairs, Source, Stage
from tests.data.made_pictures import picture

EVIL = "</p></td></title><script>alert(1)</script>\"' onload='x()' <img src=x onerror=alert(3)>"
ROOT = Path(siqvl.__file__).parent
TEMPLATES = [
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.jinja")
    if path.relative_to(ROOT).parts[0] != "model"  # chat templates
]


class Read(HTMLParser):
    """Elements, attributes and texts of a page, as a browser tells them apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def data_page() -> str:
    row = {
        "id": EVIL,
        "images": [{"bytes": picture()}],
        "prompt": [{"role": EVIL, "content": EVIL}],
        "completion": [{"role": "assistant", "content": EVIL}],
    }
    manifest = Manifest(
        kind=RowKind.SFT,
        fingerprint=EVIL,
        sources=[Source(kind=EVIL, path=EVIL, split=EVIL, subsets=[EVIL], columns={EVIL: EVIL})],
        of_sources=[SourceRows(read=9, kept=1, bad=1, left_out=1, without_picture=1, renamed=1)],
        seed=0,
        rows=1,
        rows_of_sources=[],
        rows_by_source={EVIL: 1},
        quarantined={EVIL: 1},
        left_out={EVIL: 1},
        leaks={EVIL: {"exact": 1, "near": 0}},
        neutralised=0,
        images=1,
        distinct_images=1,
        shared_images=0,
        image_width=None,
        image_height=None,
        prompt_characters=None,
        answer_characters=None,
        top_answers=[(EVIL, 1)],
        shards=[],
        pictures=Shard(name="images.parquet", rows=0, bytes=0, sha256=""),
    )
    return render_report(manifest, [[example(row)]], {EVIL: {"id": EVIL, "detail": EVIL}})


def pairs_page() -> str:
    said = [{"role": "user", "content": EVIL}]
    row = {
        "id": EVIL,
        "images": [{"bytes": picture()}],
        **dict.fromkeys(("prompt", "chosen", "rejected"), said),
        "meta": json.dumps({"answers": [EVIL], "rejected_ended": True}),
    }
    counts = dict.fromkeys(Sampling.model_fields, 1)
    about: dict[str, Any] = {
        "checkpoint": EVIL,
        "settings": SampledPairs.model_validate({"source": {"kind": "shapes"}}),
        "scorer": EVIL,
    }
    return render_page(EVIL, Sampling(**counts | about), [example(row)])


def evaluation_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    result = Result(mean=0.5, interval=(0.4, 0.6))
    score = Score(
        benchmark=EVIL,
        questions=1,
        players={"picture": result, "majority": result},
        lead={},
        types={EVIL: TypeScore(questions=1, players={"picture": result})},
        method="generation",
        scorer=EVIL,
        prompt="",
        decoding={},
        data_fingerprint="",
    )
    report = Scores(stage=Stage.DPO, random_tower=True, checkpoint_hash=EVIL, scores=[score])
    answer = {name: EVIL for name in ("benchmark", "id", "type", "question", "generation")}
    answers = [answer | {"answers": [EVIL], "answer": EVIL + EVIL, "score": 0.25}]
    pictures = {(EVIL, EVIL): [picture()]}
    monkeypatch.setattr("siqvl.evaluation.evaluation_page.pictures_of", lambda *_: pictures)
    write_report(report, answers, folder, 1, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(params=["data", "pairs", "evaluation"])
def page(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    if request.param == "evaluation":
        return Read(evaluation_page(tmp_path, monkeypatch))
    return Read({"data": data_page, "pairs": pairs_page}[request.param]())


def test_texts_cannot_become_markup(page: Read) -> None:
    """The pipeline's page has a test of its own, beside the others about it."""
    assert "script" not in page.tags
    assert page.tags.count("title") <= 3  # the page's, and one a bar
    assert page.tags.count("img") == 1
    assert not {name for name, _ in page.attributes} & {"onload", "onerror"}
    assert page.text.count(EVIL) >= 4


def test_pages_are_of_one_style_and_need_no_other_file(page: Read) -> None:
    assert page.tags.count("style") == 1
    assert (ROOT / "page/style.css.jinja").read_text(encoding="utf-8").strip() in page.text
    targets = [value or "" for name, value in page.attributes if name in ("src", "href")]
    assert all(target.startswith(("data:image/", "#")) for target in targets)
    assert not {"link", "iframe"} & set(page.tags)


def test_a_page_in_a_frame_stays_in_its_attribute() -> None:
    frame = Read(render("page/frame.html.jinja", title=EVIL, page=EVIL))
    assert frame.tags == ["iframe"]
    assert dict(frame.attributes)["srcdoc"] == dict(frame.attributes)["title"] == EVIL


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_leave_escaping_to_the_environment(name: str) -> None:
    environment().get_template(name)
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape|=\{\{", text), "an attribute needs its quotes"


def test_what_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'page' is undefined"):
        render("page/frame.html.jinja", title="x")


def test_long_texts_are_cut() -> None:
    assert shortened("12345", 5) == "12345"
    assert shortened("1234 678", 5) == "1234 …"


def test_pictures_stay_as_they_are_or_become_smaller() -> None:
    stored = picture()
    assert data_uri(stored).startswith("data:image/png;base64,")
    assert data_uri(stored, kept_bytes=1).startswith("data:image/jpeg;base64,")
