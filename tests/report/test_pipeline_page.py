"""The page: what it says is what was found, and nothing in it can break it."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from siqvl.evaluation.gates.gate import judge
from siqvl.evaluation.gates.verdict import Verdict
from siqvl.evaluation.over_controls import over_controls
from siqvl.evaluation.scoring.scores import Scores
from siqvl.number_formats import percent, points
from siqvl.recipe import PIPELINE
from siqvl.report.curves import moving_mean
from siqvl.report.pipeline_page import PAGE, write_page
from tests.made_pipeline import Made, make_pipeline

VOID = {"meta", "link", "img", "br", "input"}


class Checked(HTMLParser):
    """Elements, texts and attributes; asserts that what is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self.open and self.open[-1] != "style" else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def written(
    made: Made, out: Path, verdicts: list[Verdict] | None = None, *, control: bool = True
) -> str:
    reports = [*made.reports, *([made.control] if control else [])]
    if verdicts is None:
        verdicts = judge(made.recipe.evaluation.gates, reports)
    write_page(
        made.recipe,
        out,
        run="run <7>",
        checkpoints=made.checkpoints,
        reports=reports,
        benchmarks=made.benchmarks,
        verdicts=verdicts,
        compared=over_controls(reports),
    )
    return (out / PAGE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(made: Made, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(made, tmp_path_factory.mktemp("page"))


def test_the_page_needs_nothing_else(page: str) -> None:
    checked = Checked(page)
    assert not checked.all("script")
    assert not checked.all("link")
    sources = [attributes["src"] or "" for attributes in checked.all("img")]
    assert all(source.startswith("data:image/") for source in sources)
    targets = [attributes.get("href") or "" for _, attributes in checked.tags]
    assert all(target.startswith("#") for target in targets if target)
    assert not re.search(r"url\(|@import|https?://", page)


def test_links_and_labels_lead_somewhere(page: str) -> None:
    checked = Checked(page)
    ids = [attributes["id"] for _, attributes in checked.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for _, attributes in checked.tags:
        for name in ("href", "aria-labelledby"):
            if attributes.get(name):
                assert (attributes[name] or "").removeprefix("#") in ids


def test_tables_and_pictures_can_be_read_aloud(page: str) -> None:
    checked = Checked(page)
    assert all(attributes.get("scope") for attributes in checked.all("th"))
    assert all(attributes.get("alt") for attributes in checked.all("img"))
    drawn = [attributes for _, attributes in checked.tags if attributes.get("role") == "img"]
    assert len(drawn) >= 4 + 6  # curves and gates
    assert all(attributes.get("aria-label") for attributes in drawn)


def test_every_score_and_its_floors_are_in_the_table(made: Made, page: str) -> None:
    text = Checked(page).text
    for report in [*made.reports, made.control]:
        for score in Scores.read(report).scores:
            low, high = score.players["picture"].interval
            assert f"{100 * low:.1f}\u202f–\u202f{100 * high:.1f}" in text
            for result in score.players.values():
                assert percent(result.mean) in text
    assert "projector alignment, random tower" in text


def test_every_gate_is_there_with_its_figures(made: Made, page: str) -> None:
    text = Checked(page).text
    verdicts = judge(made.recipe.evaluation.gates, [*made.reports, made.control])
    assert len(verdicts) == 6
    for verdict in verdicts:
        assert verdict.claim in text
        assert verdict.difference is not None
        assert f"{points(verdict.difference)} points" in text
        assert verdict.side.label in text
        assert verdict.rival.label in text


def test_every_gate_and_control_names_scorer_and_method(made: Made, page: str) -> None:
    text = Checked(page).text
    verdicts = judge(made.recipe.evaluation.gates, [*made.reports, made.control])
    for verdict in verdicts:
        assert verdict.judged
        assert f"paired; {verdict.judged}." in text


def test_a_stage_stands_beside_its_control(made: Made, page: str, tmp_path: Path) -> None:
    text = Checked(page).text
    assert "Over controls" in text
    (found,) = over_controls([*made.reports, made.control])
    assert found.title == "projector alignment over random tower"
    for part in (found.title, found.judged, found.verdict, points(found.comparison.difference)):
        assert part in text
    without = Checked(written(made, tmp_path, control=False)).text
    assert "Over controls" not in without


def test_the_headline_says_what_became_of_it(made: Made, tmp_path: Path) -> None:
    verdicts = judge(made.recipe.evaluation.gates, [*made.reports, made.control])
    good = [verdict.model_copy(update={"passed": True}) for verdict in verdicts]
    assert "<h1>All 6 gates passed: promoted</h1>" in written(made, tmp_path, good)
    bad = [good[0].model_copy(update={"passed": False}), *good[1:]]
    page = written(made, tmp_path, bad)
    assert "<h1>1 of 6 gates failed: not promoted</h1>" in page
    assert f"<p>A{bad[0].claim[1:]}</p>" in page
    none = written(made, tmp_path, [])
    assert "<h1>Nothing was tested: promoted</h1>" in none
    assert "The recipe has no gates" in none


def test_a_gate_that_was_not_tested_says_why(made: Made, tmp_path: Path) -> None:
    verdicts = judge(made.recipe.evaluation.gates, made.reports)  # without the control
    text = Checked(written(made, tmp_path, verdicts)).text
    reason = "there is no evaluation of projector alignment behind a random tower"
    assert f"Not tested: {reason}." in text


def test_outcomes_are_words_too(made: Made, page: str) -> None:
    text = Checked(page).text
    assert text.count("right answer") == made.recipe.evaluation.report_pictures
    # 12 questions of all four stages, 12 of the last two
    marks = re.findall(r'class="mark (good|bad)"><svg.*?</svg>(\w+)<', page)
    answers = [mark for mark in marks if mark[1] in ("right", "wrong")]
    assert set(answers) == {("good", "right"), ("bad", "wrong")}
    assert len(answers) == 12 * 4 + 12 * 2


def test_pictures_are_those_of_the_rows(made: Made, page: str) -> None:
    published = {
        path.read_bytes() and Image.open(path).convert("RGB").tobytes()
        for path in made.benchmarks.glob("*-published/*.png")
    }
    sources = [attributes["src"] or "" for attributes in Checked(page).all("img")]
    assert len(sources) == 24
    for source in sources:
        data = base64.b64decode(source.partition(",")[2])
        assert Image.open(io.BytesIO(data)).convert("RGB").tobytes() in published
    assert len(page) < 3_000_000


def test_texts_cannot_become_markup(tmp_path: Path) -> None:
    """A question, an answer and a type that would run a script, close a tag or a quote."""
    evil = "</h3><script>alert(1)</script>\"'<img src=x onerror=alert(2)>&amp;"

    def poison(rows: list[dict]) -> None:
        for row in rows:
            row |= {"question": evil, "answer": evil, "wrong": evil, "type": row["type"] + evil}

    made = make_pipeline(tmp_path, questions=12, edit=poison)
    claim = {"claim": evil}
    verdicts = judge(made.recipe.evaluation.gates, [*made.reports, made.control])
    page = written(made, tmp_path, [verdict.model_copy(update=claim) for verdict in verdicts])
    checked = Checked(page)
    assert not checked.all("script")
    assert not [attributes for _, attributes in checked.tags if "onerror" in attributes]
    assert evil in checked.text
    assert "run <7>" in checked.text


def test_a_stage_without_a_history_is_no_error(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    source = made.checkpoints[0]
    (folder / "siqvl.json").write_bytes((source / "siqvl.json").read_bytes())
    (folder / "model.safetensors").touch()
    other = Made(
        made.recipe, made.benchmarks, [folder, *made.checkpoints[1:]], made.reports, made.control
    )
    text = Checked(written(other, tmp_path)).text
    assert "Its checkpoint keeps no loss" in text
    assert text.count("optimizer step") == 3


def test_smoothing_is_a_centred_mean() -> None:
    points = [(float(step), loss) for step, loss in enumerate((4.0, 1.0, 1.0, 7.0))]
    assert moving_mean(points, 1) == points
    assert [loss for _, loss in moving_mean(points, 3)] == [2.5, 2.0, 3.0, 4.0]


def test_the_made_pipeline_has_four_stages(made: Made) -> None:
    assert [Scores.read(report).stage for report in made.reports] == list(PIPELINE)
    assert all(json.loads((path / "history.json").read_text()) for path in made.checkpoints)
