"""benchmarks/training: both sides train on the same tokens, and its arithmetic is right."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from trl.trainer import utils as trl_utils
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from benchmarks.training import compare
from benchmarks.training.__main__ import main, prepared
from benchmarks.training.clock import Clock
from benchmarks.training.compare import comparison, with_one_off
from benchmarks.training.ours import ours_recipe
from benchmarks.training.parity import parity_table
from benchmarks.training.parts import load, make_parts
from benchmarks.training.peer import DEFAULTS, arguments, score_answers_alone, without_newline
from benchmarks.training.rows import sizes_of, trl_rows
from benchmarks.training.scenario import ROOT, Scenario
from benchmarks.training.variants import beside, candidates, variants
from siqvl.data.encode import encode_preference, encode_sft
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.model.assemble import build_on_meta
from siqvl.model.configuration import SiQVLConfig
from siqvl.recipe import Stage

IGNORED = -100


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory) -> dict[str, Scenario]:
    """Stages 2 and DPO of the tiny model, of 20 rows each."""
    work = tmp_path_factory.mktemp("benchmarks")
    size = {"steps": 5, "rows_per_step": 4}
    return {stage: prepared(Scenario.of("tiny", stage, work, **size)) for stage in ("2", "dpo")}


@pytest.fixture(scope="module")
def model_and_processor(scenarios):
    scenario = scenarios["2"]
    return load(scenario, ours_recipe(scenario, {}, scenario.work), scenario.parent)


def real_tokens(batch, row: int) -> list[int]:
    return batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist()


@pytest.mark.parametrize("ending", [[], ["\n"]], ids=["no newline", "as users have it"])
def test_the_peer_trains_the_tokens_of_our_encoding(scenarios, model_and_processor, ending) -> None:
    """TRL's own collator; but for the line break after the end token, which it trains, too."""
    scenario, (_, processor) = scenarios["2"], model_and_processor
    template = processor.chat_template
    try:
        if not ending:
            processor.chat_template = without_newline(template)
        rows = trl_rows(scenario)
        # what SFTTrainer makes of rows with a completion
        collate = DataCollatorForVisionLanguageModeling(
            processor, max_length=None, completion_only_loss=True
        )
        batch = collate([rows[index] for index in range(len(rows))])
    finally:
        processor.chat_template = template
    extra = processor.tokenizer("".join(ending), add_special_tokens=False)["input_ids"]
    assert len(extra) == len(ending)
    stored, _ = load_prepared(scenario.data, RowKind.SFT)
    for number, row in enumerate(stored):
        ours = encode_sft(row, processor)
        assert real_tokens(batch, number) == ours.input_ids + extra
        labels = batch["labels"][number][batch["attention_mask"][number].bool()].tolist()
        assert labels == ours.labels + extra
    assert len(batch["pixel_values"]) == len(stored)


def test_the_peer_prefers_the_tokens_of_our_encoding(scenarios, model_and_processor) -> None:
    scenario, (_, processor) = scenarios["dpo"], model_and_processor
    template = processor.chat_template
    try:
        processor.chat_template = without_newline(template)
        rows = trl_rows(scenario)
        batch = DataCollatorForVisionPreference(processor)(
            [rows[index] for index in range(len(rows))]
        )
    finally:
        processor.chat_template = template
    stored, _ = load_prepared(scenario.data, RowKind.PREFERENCE)
    for number, row in enumerate(stored):
        sides = encode_preference(row, processor)
        for place, ours in zip((number, number + len(stored)), sides, strict=True):
            assert real_tokens(batch, place) == ours.input_ids
            mask = batch["completion_mask"][place][batch["attention_mask"][place].bool()]
            assert mask.tolist() == [int(label != IGNORED) for label in ours.labels]


def test_a_template_that_ends_turns_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match="ends a turn"):
        without_newline("{{ messages }}")


def test_scoring_answers_alone_changes_no_loss(scenarios, model_and_processor, monkeypatch) -> None:
    """What a GPU leaves out has no part in it."""
    scenario, (model, processor) = scenarios["2"], model_and_processor
    rows = trl_rows(scenario)
    collate = DataCollatorForVisionLanguageModeling(
        processor, max_length=None, completion_only_loss=True
    )
    batch = collate([rows[index] for index in range(4)])
    monkeypatch.setattr(trl_utils, "_use_triton", trl_utils._use_triton)  # put back afterwards
    forward, found = model.forward, []
    trl_utils.add_fused_lm_head(model)
    try:
        for compact in (False, True):
            if compact:
                score_answers_alone()
            with torch.no_grad():
                found.append(model(**batch, fused_lm_head=True).log_probs)
    finally:
        model.forward = forward
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)
    assert found[0].ne(0).sum() == batch["labels"][:, 1:].ne(IGNORED).sum()


def test_sizes_of_rows(scenarios, model_and_processor) -> None:
    _, processor = model_and_processor
    stored, _ = load_prepared(scenarios["dpo"].data, RowKind.PREFERENCE)
    pairs = [encode_preference(row, processor) for row in stored]
    sizes = sizes_of(scenarios["dpo"])
    assert sizes["lengths"] == [max(len(one) for one in pair) for pair in pairs]
    assert sizes["apart"]["tokens"] == sum(len(one) for pair in pairs for one in pair) / len(pairs)
    assert sizes["shared"]["tokens"] < sizes["apart"]["tokens"]
    assert sizes["shared"]["images"] == sizes["apart"]["images"] == 1


def test_packs_hold_the_rows_of_a_step(tmp_path: Path) -> None:
    """64 rows of 50 tokens are 6.25 packs of 512."""
    scenario = Scenario.of("tiny", "2", tmp_path, rows_per_step=64)
    write_sizes(scenario, [40, 60])
    recipe = ours_recipe(scenario, {"batching": "packed"}, tmp_path)
    stage = recipe.stage(Stage.VQA_SFT)
    assert (stage.batch_size, stage.pack_length) == (6, 512)


def write_sizes(scenario: Scenario, lengths: list[int]) -> None:
    scenario.data.mkdir()
    (scenario.data / "sizes.json").write_text(json.dumps({"lengths": lengths}))


def test_the_figures_of_a_run() -> None:
    """Rates leave the steps of warm-up out: 2 + 4 rows in the 3 seconds after the second step."""
    clock = Clock(2)
    clock.ends, clock.rows = [10.0, 20.0, 21.0, 23.0], [8, 8, 2, 4]
    slept = clock.once(lambda: 7)
    assert slept() == 7
    figures = clock.figures()
    assert figures["samples_per_second"] == 2.0
    assert figures["rows_per_step"] == 5.5
    assert 0 < figures["one_off_seconds"] < 1


def test_the_table_by_hand(scenarios) -> None:
    """20 rows at 10/s after 2 s of work done once, against 4/s: 20/4 = 5/4, 60/8 = 7.5/4."""
    scenario = scenarios["2"]
    common = {"gpu_mib": None, "peak_mib": 900.0, "rows_per_step": 4.0}
    common |= {"flops": 7e10, "peak_flops": None}
    ours = common | {"one_off_seconds": 2.0, "training_mib": 300.0}
    peer = common | {"one_off_seconds": 0.0, "training_mib": 400.0}
    found = {
        # turns on a machine that is now twice as quick, now half as quick
        "ours": [ours | {"samples_per_second": rate} for rate in (20.0, 10.0, 5.0)],
        "TRL": [peer | {"samples_per_second": rate} for rate in (8.0, 4.0, 2.0)],
    }
    assert with_one_off(scenario, found["ours"][1:2], 1) == 5.0
    assert with_one_off(scenario, found["ours"][1:2], 3) == 7.5
    line = comparison(scenario, found, "TRL")[2]
    for cell in ("10.0 (5.0–20.0)", "2.50x", "1.25x", "1.88x", "0.75x", " 70 "):
        assert cell in line
    assert f"{10 * sizes_of(scenario)['apart']['tokens']:,.0f}" in line
    for runs in found.values():
        runs[:] = [run | {"gpu_mib": run["training_mib"], "peak_flops": 1e11} for run in runs]
    assert "70.0%" in comparison(scenario, found, "TRL")[2]


def test_the_table_of_losses_names_the_largest_difference() -> None:
    near, far = parity_table({"near": ([1.0, 2.0], [1.0, 2.00005]), "far": ([1.0], [1.01])})[2:]
    assert "5.0e-05" in near
    assert "NOT" not in near
    assert "NOT 0.0001" in far


def test_both_sides_have_the_figures_of_the_stage(scenarios) -> None:
    scenario = scenarios["dpo"]
    stage = ours_recipe(scenario, {}, scenario.work).stage(Stage.DPO)
    found = arguments(scenario, stage, DEFAULTS | {"accumulation": 2}, scenario.work)
    assert found.per_device_train_batch_size * found.gradient_accumulation_steps == 4
    assert (found.learning_rate, found.beta) == (stage.learning_rate, stage.beta)
    assert found.loss_type == ["sigmoid"] == list(stage.loss)
    assert found.warmup_steps == math.ceil(stage.warmup_ratio * scenario.steps)
    assert not found.bf16
    assert found.max_length is None


def test_every_setting_of_the_peer_is_known(scenarios) -> None:
    for scenario in scenarios.values():
        for variant in [*variants(scenario), *candidates(scenario)]:
            if variant.side == "peer":
                assert variant.settings.keys() <= DEFAULTS.keys()


def test_the_full_model_on_paper(tmp_path: Path, real_data: Path) -> None:
    """so400m and Qwen2.5-0.5B: shapes without memory, and a recipe that asks for them."""
    scenario = Scenario.of("full", "2", tmp_path, steps=5, rows_per_step=2)
    make_parts("full", scenario.parts)
    write_sizes(scenario, [300, 340])
    vision, language = (
        json.loads((scenario.parts / part / "config.json").read_text())
        for part in ("vision", "language")
    )
    config = SiQVLConfig(vision_config=vision["vision_config"], text_config=language)
    model = build_on_meta(config)
    tower = sum(weight.numel() for weight in model.model.vision_tower.parameters())
    assert tower == 412_987_248  # see SiQVLModel
    assert model.get_input_embeddings().weight.shape == (151_936, 896)
    assert config.tokens_per_image == scenario.size.max_image_tokens
    recipe = ours_recipe(scenario, {}, tmp_path / "out")
    assert recipe.model.init == "config"
    assert recipe.stage(Stage.VQA_SFT).precision == "bf16"


@pytest.mark.integration
def test_a_comparison_from_end_to_end(
    tmp_path: Path, forked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Speed of a stage and losses of all three, as the command prints them."""
    monkeypatch.setattr(compare, "sys", SimpleNamespace(executable=str(forked / "python")))
    small = ["--model", "tiny", "--steps", "5", "--rows-per-step", "4", "--work", str(tmp_path)]
    record = tmp_path / "figures.json"
    speed = [*small, "--stage", "2", "--repeats", "1", "--json", str(record)]
    done = CliRunner().invoke(main, speed, catch_exceptions=False)
    assert done.exit_code == 0
    runs = json.loads(record.read_text())["stage 2"]["runs"]
    assert {"ours", "ours, cached features", "TRL", "TRL, leanest"} <= set(runs)
    for (run,) in runs.values():
        assert run["samples_per_second"] > 0
        assert run["rows_per_step"] == 4
        assert 0 < run["training_mib"] < run["peak_mib"]
    assert runs["ours, cached features"][0]["one_off_seconds"] > 0

    done = CliRunner().invoke(main, [*small, "--parity"], catch_exceptions=False)
    assert done.exit_code == 0
    exact = [line for line in done.output.splitlines() if line.endswith("0.0001")]
    assert len([line for line in exact if "NOT" not in line]) >= 3


def test_nanovlm_is_the_last_line_and_another_build_runs_its_own_code(tmp_path: Path) -> None:
    scenario = Scenario.of("50m", "2", tmp_path)
    lines = beside(scenario, tmp_path / "nanoVLM", tmp_path / "old")
    assert [line.name for line in lines] == [
        *("ours", "ours, cached features"),
        *("the other build", "the other build, cached features"),
        "nanoVLM",
    ]
    assert lines[-1].settings == {"path": str(tmp_path / "nanoVLM")}
    assert [line.settings for line in lines[:2]] == [line.settings for line in lines[2:4]]
    work = {line.of_checkout(scenario).work for line in lines if line.checkout != ROOT}
    assert work == {tmp_path / "against"}, "rows that another build prepared are its own"
    assert [line.name for line in beside(scenario, None, tmp_path / "old")] == [
        *("ours", "the other build")
    ]
