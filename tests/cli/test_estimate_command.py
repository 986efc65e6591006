"""`siqvl estimate` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from siqvl.cli.main import main

RECIPE = str(Path(__file__).parents[2] / "recipes" / "tiny.yaml")


def test_a_table_and_the_same_as_json() -> None:
    words = ["estimate", RECIPE, "--stage", "vqa_sft", "--gpu", "t4"]
    words += ["--set", "stages.vqa_sft.max_length=64"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 100
    assert "memory of t4, 16.0 GiB" in done.output
    assert "hours: no peak of t4 in fp32 is known" in done.output  # one was named
    told = json.loads(CliRunner().invoke(main, [*words, "--json"]).output)
    (stage,) = told["stages"]
    assert stage["memory"]["width"] == 64
    assert stage["precision"] == "fp32"  # a T4 has no bfloat16
    assert stage["fits"] is True


def test_a_stage_of_another_name_is_a_sentence() -> None:
    done = CliRunner().invoke(main, ["estimate", RECIPE, "--stage", "stage2"])
    assert done.exit_code == 1
    assert "stage2 is none of projector_alignment, vqa_sft" in " ".join(done.output.split())


def test_a_rank_that_no_layer_has_room_for_is_a_sentence() -> None:
    words = ["estimate", RECIPE, "--stage", "vqa_sft"]
    done = CliRunner().invoke(main, [*words, "--set", "stages.vqa_sft.adapter.rank=1000000"])
    assert isinstance(done.exception, SystemExit)
    assert "`adapter.rank` is 1000000, but the widest layer" in " ".join(done.output.split())


@pytest.mark.parametrize("part", ["language", "vision"])
def test_a_part_of_another_kind_is_a_sentence(tmp_path: Path, part: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    words = ["estimate", RECIPE, "--stage", "vqa_sft", "--set", f"model.{part}={tmp_path}"]
    done = CliRunner().invoke(main, words)
    assert isinstance(done.exception, SystemExit)  # and no traceback
    assert "has model_type 'llama'" in " ".join(done.output.split())
