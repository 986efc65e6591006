"""Stages beside their controls, on differences worked out by hand."""

from pathlib import Path

import pytest

from siqvl.evaluation.over_controls import control_table, over_controls
from siqvl.recipe import Control, Stage
from tests.written_reports import write_report


def right(count: int) -> dict[str, float]:
    return {f"q{index}": float(index < count) for index in range(1000)}


def test_every_benchmark_that_both_answered(tmp_path: Path) -> None:
    aligned, dpo = Stage.PROJECTOR_ALIGNMENT, Stage.DPO
    reports = [
        write_report(tmp_path / "1", aligned, {("vqa", "picture"): right(700)}),
        write_report(
            tmp_path / "4",
            dpo,
            {(name, "picture"): right(900) for name in ("vqa", "reasoned", "pairs", "direct")},
        ),
        write_report(
            tmp_path / "tower",
            aligned,
            {("vqa", "picture"): right(300)},
            control=Control.RANDOM_TOWER,
        ),
        write_report(
            tmp_path / "likelihood",
            dpo,
            {
                ("vqa", "picture"): right(900),
                ("reasoned", "picture"): right(850),
                ("pairs", "picture"): right(950),
            },
            control=Control.LIKELIHOOD,
        ),
    ]
    found = over_controls(reports)
    assert [(one.control, one.benchmark, one.verdict) for one in found] == [
        (Control.RANDOM_TOWER, "vqa", "better"),
        (Control.LIKELIHOOD, "vqa", "no difference shown"),
        (Control.LIKELIHOOD, "reasoned", "better"),
        (Control.LIKELIHOOD, "pairs", "worse"),
    ]
    differences = [one.comparison.difference for one in found]
    assert differences == pytest.approx([0.4, 0.0, 0.05, -0.05])
    metrics = found[2].metrics()
    name = "control/likelihood_control/reasoned/difference"
    assert metrics.keys() == {name, f"{name}_low", f"{name}_high"}
    # 50 ones, 950 zeros: error of the mean sqrt(0.05 * 0.95 / 1000) = 0.0069
    assert metrics[f"{name}_low"] == pytest.approx(0.05 - 1.96 * 0.0069, abs=0.002)
    table = control_table(found)
    assert "DPO over likelihood alone" in table
    assert "reasoned: generation, exact_match/1" in table


def test_without_controls_or_their_stage_there_is_nothing(tmp_path: Path) -> None:
    answers = {("vqa", "picture"): right(500)}
    stage = write_report(tmp_path / "4", Stage.DPO, answers)
    control = write_report(tmp_path / "c", Stage.DPO, answers, control=Control.LIKELIHOOD)
    assert over_controls([stage]) == []
    assert over_controls([control]) == []
