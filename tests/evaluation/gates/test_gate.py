"""Gates: every outcome, on differences worked out by hand."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from siqvl.errors import UserError
from siqvl.evaluation.gates.gate import judge
from siqvl.evaluation.gates.verdict import (
    Verdict,
    gate_table,
    points,
    read_verdicts,
    required,
    summary,
    write_verdicts,
)
from siqvl.recipe import Control, Gate, Rival, Stage
from tests.written_reports import write_report


def right(count: int, of: int = 1000) -> dict[str, float]:
    return {f"q{index}": float(index < count) for index in range(of)}


@pytest.fixture
def reports(tmp_path: Path) -> list[Path]:
    """Right answers of 1,000; a player right more often is right wherever the other one is."""
    first = {("vqa", "picture"): right(460), ("vqa", "no_picture"): right(250)}
    control = {("vqa", "picture"): right(255), ("vqa", "no_picture"): right(250)}
    second = {
        ("vqa", "picture"): right(930),
        ("direct", "picture"): right(400),
        ("reasoned", "picture"): right(480),
    }
    aligned = Stage.PROJECTOR_ALIGNMENT
    return [
        write_report(tmp_path / "1", aligned, first),
        write_report(tmp_path / "random", aligned, control, control=Control.RANDOM_TOWER),
        write_report(tmp_path / "2", Stage.VQA_SFT, second),
    ]


def gate(
    over: Rival, *, stage: Stage = Stage.VQA_SFT, benchmark: str = "vqa", **options: object
) -> Gate:
    content = {"claim": "it is better", "stage": stage, "benchmark": benchmark, "over": over}
    return Gate.model_validate(content | options)


def one(gate: Gate, reports: list[Path]) -> Verdict:
    (verdict,) = judge([gate], reports)
    return verdict


def test_a_claim_that_holds(reports: list[Path]) -> None:
    claim = "after VQA SFT the model answers vqa better than after projector alignment"
    over = Rival(stage=Stage.PROJECTOR_ALIGNMENT)
    verdict = one(gate(over, claim=claim), reports)
    assert verdict.passed
    assert (verdict.n, verdict.mean, verdict.rival_mean) == (1000, 0.93, 0.46)
    assert verdict.difference == pytest.approx(0.47)
    assert verdict.interval is not None
    low, high = verdict.interval
    # error of the mean of 470 ones and 530 zeros: sqrt(0.47 * 0.53 / 1000) = 0.0158
    assert (low, high) == pytest.approx((0.47 - 0.0309, 0.47 + 0.0309), abs=0.006)
    assert verdict.sentence == (
        f"passed: {claim}: 93.0 % against 46.0 %, +47.0 points (95 % interval "
        f"+{100 * low:.1f} … +{100 * high:.1f}, must lie above 0) "
        "[generation, exact_match/1]"
    )
    assert verdict.side.label == "VQA SFT, vqa"
    assert verdict.rival.label == "projector alignment, vqa"


@pytest.mark.parametrize(
    ("bounds", "passed"),
    [
        ({"above": 0.0}, True),
        ({"above": 0.43}, True),
        ({"above": 0.45}, False),  # the mean is above, the interval is not
        ({"above": None, "below": 0.51}, True),
        ({"above": None, "below": 0.48}, False),
        ({"above": 0.43, "below": 0.51}, True),
        ({"above": 0.43, "below": 0.48}, False),
        ({"above": 0.45, "below": 0.51}, False),
    ],
)
def test_the_whole_interval_must_lie_between_the_bounds(
    reports: list[Path], bounds: dict[str, float | None], passed: bool
) -> None:
    """470 of 1,000 more: the interval is 47.0 ± 3.1 points."""
    over = Rival(stage=Stage.PROJECTOR_ALIGNMENT)
    assert one(gate(over, **bounds), reports).passed is passed


def test_a_tie_is_not_above_zero(tmp_path: Path) -> None:
    equal = {("vqa", "picture"): right(5, 10), ("vqa", "majority"): right(5, 10)}
    report = write_report(tmp_path / "tie", Stage.VQA_SFT, equal)
    verdict = one(gate(Rival(player="majority")), [report])
    assert verdict.interval == (0.0, 0.0)
    assert not verdict.passed
    assert one(gate(Rival(player="majority"), above=-0.01), [report]).passed


def test_the_rival_takes_what_it_leaves_out_from_the_gate(reports: list[Path]) -> None:
    verdict = one(gate(Rival(benchmark="direct"), benchmark="reasoned"), reports)
    assert verdict.passed
    assert verdict.difference == pytest.approx(0.08)
    assert verdict.rival.label == "VQA SFT, direct"


def test_the_control_is_told_apart(reports: list[Path]) -> None:
    aligned = Stage.PROJECTOR_ALIGNMENT
    better = one(gate(Rival(random_tower=True), stage=aligned), reports)
    assert better.passed
    assert better.difference == pytest.approx(0.205)
    assert better.rival.label == "projector alignment, random tower, vqa"
    floor = Rival(random_tower=True, player="no_picture")
    stays = gate(floor, stage=aligned, random_tower=True, above=None, below=0.05)
    assert one(stays, reports).passed
    assert one(stays, reports).difference == pytest.approx(0.005)


def test_stage_4_over_its_control(tmp_path: Path) -> None:
    """The control is another model than the stage, of the same stage."""
    answers = {("vqa", "picture"): right(940)}
    control = {("vqa", "picture"): right(900)}
    reports = [
        write_report(tmp_path / "4", Stage.DPO, answers),
        write_report(tmp_path / "control", Stage.DPO, control, control=Control.LIKELIHOOD),
    ]
    over = gate(Rival(likelihood_control=True), stage=Stage.DPO)
    verdict = one(over, reports)
    assert verdict.passed
    assert verdict.difference == pytest.approx(0.04)
    assert verdict.rival.label == "DPO, likelihood alone, vqa"
    missing = one(over, reports[:1])
    assert "there is no evaluation of DPO by likelihood alone" in missing.sentence


def test_a_verdict_names_scorer_and_method(tmp_path: Path) -> None:
    """Both where the sides are scored in two ways; none of what was not scored."""
    first, second = {("vqa", "picture"): right(460)}, {("vqa", "picture"): right(930)}
    reports = [
        write_report(tmp_path / "1", Stage.PROJECTOR_ALIGNMENT, first, scorer="gqa/2"),
        write_report(tmp_path / "2", Stage.VQA_SFT, second),
    ]
    verdict = one(gate(Rival(stage=Stage.PROJECTOR_ALIGNMENT)), reports)
    assert verdict.judged == "generation, exact_match/1 against generation, gqa/2"
    assert verdict.sentence.endswith("must lie above 0) [" + verdict.judged + "]")
    assert gate_table([verdict]).splitlines()[-1].endswith(verdict.judged)
    alone = one(gate(Rival(stage=Stage.DPO)), reports)
    assert alone.judged == "generation, exact_match/1"
    assert one(gate(Rival(stage=Stage.DPO), stage=Stage.COT_SFT), reports).judged == ""


def test_what_cannot_be_tested_has_failed(reports: list[Path]) -> None:
    missing = one(gate(Rival(stage=Stage.PROJECTOR_ALIGNMENT), stage=Stage.DPO), reports)
    assert not missing.passed
    assert missing.interval is None
    assert missing.sentence == ("failed: it is better: not tested, there is no evaluation of DPO")
    aligned = Stage.PROJECTOR_ALIGNMENT
    control = one(gate(Rival(random_tower=True), stage=aligned), [reports[0], reports[2]])
    assert "projector alignment behind a random tower" in control.sentence
    unknown = one(gate(Rival(player="question_only")), reports)
    assert not unknown.passed
    assert "no answers of player `question_only`" in unknown.sentence


def test_two_reports_of_one_stage_are_refused(reports: list[Path]) -> None:
    with pytest.raises(UserError, match="both hold scores of VQA SFT"):
        judge([], [*reports, reports[2]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"above": None}, "tests nothing"),
        ({"over": {}}, "compares a score with itself"),
        ({"over": {"stage": "vqa_sft", "benchmark": "vqa"}}, "compares a score with itself"),
        ({"random_tower": True}, "is trained in stage `projector_alignment` alone"),
        ({"likelihood_control": True}, "is trained in stage `dpo` alone"),
        ({"over": {"likelihood_control": True}}, "is trained in stage `dpo` alone"),
    ],
)
def test_a_gate_that_cannot_mean_anything_is_refused(
    content: dict[str, object], message: str
) -> None:
    whole = {"claim": "c", "stage": "vqa_sft", "benchmark": "vqa", "over": {"stage": "dpo"}}
    Gate.model_validate(whole)
    with pytest.raises(ValidationError, match=message):
        Gate.model_validate(whole | content)


def test_verdicts_are_kept_as_they_are(reports: list[Path], tmp_path: Path) -> None:
    over = Rival(stage=Stage.PROJECTOR_ALIGNMENT)
    verdicts = judge([gate(over), gate(over, stage=Stage.DPO)], reports)
    write_verdicts(verdicts, tmp_path)
    assert read_verdicts(tmp_path) == verdicts
    (tmp_path / "gates.json").write_text("[{}]")
    with pytest.raises(UserError, match=r"gates\.json is damaged"):
        read_verdicts(tmp_path)
    with pytest.raises(UserError, match="is no pipeline report"):
        read_verdicts(reports[0])


def test_the_table_has_a_line_a_gate(reports: list[Path]) -> None:
    over = Rival(stage=Stage.PROJECTOR_ALIGNMENT)
    verdicts = judge([gate(over), gate(over, stage=Stage.DPO)], reports)
    head, _, first, second, reason = gate_table(verdicts).splitlines()
    assert head.split()[:2] == ["gate", "claim"]
    assert first.startswith("passed  it is better  1,000  93.0 %   46.0 %   +47.0  ")
    assert first.endswith("above 0   generation, exact_match/1")
    assert second.startswith("failed  it is better      –")
    assert reason == verdicts[1].sentence
    assert summary(verdicts) == "1 of 2 gates failed: it is better"
    assert summary(verdicts[:1] * 2) == "all 2 gates passed"
    assert summary([]) == "nothing was tested: the recipe has no gates"


def test_points_and_bounds_read_well() -> None:
    assert [points(share) for share in (0.471, -0.0031, -0.0001, 0)] == [
        "+47.1",
        "−0.3",
        "+0.0",
        "+0.0",
    ]
    assert required(0.0, None) == "above 0"
    assert required(-0.01, 0.025) == "above −1 and below +2.5"
