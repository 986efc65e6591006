"""The stored scores, the stage table and the names of metrics."""

from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.evaluation.scoring.scores import Result, Score, Scores, TypeScore, stage_table
from siqvl.recipe import Stage


def made(**changes) -> Scores:
    score = Score(
        benchmark="vqa",
        questions=2000,
        players={
            "picture": Result(mean=0.75, interval=(0.731, 0.769)),
            "no_picture": Result(mean=0.25, interval=(0.23, 0.27)),
            "random_choice": Result(mean=0.283, interval=(0.27, 0.29)),
        },
        lead={"no_picture": Result(mean=0.5, interval=(0.48, 0.52))},
        types={
            "where": TypeScore(
                questions=400, players={"picture": Result(mean=0.5, interval=(0.4, 0.6))}
            )
        },
        method="generation",
        scorer="exact_match/1",
        prompt="<|im_start|>user\n…",
        decoding={"method": "greedy", "max_new_tokens": 6},
        data_fingerprint="f" * 64,
    )
    about = {"stage": Stage.VQA_SFT, "random_tower": False, "checkpoint_hash": "c" * 64}
    return Scores(**{**about, "scores": [score], **changes})


def test_they_are_read_as_they_were_written(tmp_path: Path) -> None:
    made().write(tmp_path)
    assert Scores.read(tmp_path) == made()


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no evaluation report"), ("{}", "damaged")]
)
def test_what_is_no_report_is_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "scores.json").write_text(content)
    with pytest.raises(UserError, match=message):
        Scores.read(tmp_path)


def test_the_table_has_a_line_a_benchmark_and_a_dash_for_who_cannot_play() -> None:
    written = stage_table([made(), made(random_tower=True)]).splitlines()
    head, rule, line, control, empty, note = written
    cells = [
        [cell.strip() for cell in text.split("  ") if cell.strip()]
        for text in (head, line, control)
    ]
    assert cells[0] == [
        *("stage", "benchmark", "n", "score", "95 % interval"),
        *("no picture", "other picture", "majority", "q-only", "random"),
    ]
    figures = ["2,000", "75.0 %", "73.1 % – 76.9 %", "25.0 %", "–", "–", "–", "28.3 %"]
    assert cells[1] == ["vqa_sft", "vqa", *figures]
    assert cells[2] == ["vqa_sft, random tower", "vqa", *figures]
    assert set(rule) == {"─", " "}
    assert (empty, note) == ("", "vqa: generation, exact_match/1")


def test_figures_stand_below_the_table_and_among_the_metrics() -> None:
    (score,) = made().scores
    figures = {"total": 1210.0, "existence": 170.25}
    report = made(scores=[score.model_copy(update={"figures": figures, "scorer": "mme/1"})])
    assert stage_table([report]).splitlines()[-1] == (
        "vqa: generation, mme/1; total 1,210.0, existence 170.2"
    )
    assert report.metrics()["vqa/figure/total"] == 1210


def test_metrics_keep_their_names() -> None:
    assert made().metrics() == {
        "vqa/accuracy": 0.75,
        "vqa/accuracy_low": 0.731,
        "vqa/accuracy_high": 0.769,
        "vqa/no_picture": 0.25,
        "vqa/random_choice": 0.283,
        "vqa/type/where": 0.5,
    }
