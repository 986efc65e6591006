"""Compiled layers compute what plain ones do; needs a C++ compiler, and half a minute."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch._inductor.config
from safetensors.torch import load_file

from siqvl.data.preparation.prepare import prepare
from siqvl.recipe import Recipe, Stage
from siqvl.stages import STAGES
from siqvl.training.stage import train_stage

STAGE = Stage.PROJECTOR_ALIGNMENT


@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile for a CPU needs g++")
def test_a_stage_with_compiled_layers_learns_the_same(
    tmp_path: Path, small_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a pool of compiling processes would import torch in each, for little to compile
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)
    weights = []
    for compile in (False, True):
        content = small_recipe(tmp_path).model_dump(mode="json")
        content["stages"][STAGE.value] |= {
            "compile": compile,
            "trainable": ["projector", "language_model"],
            "max_steps": 3,
        }
        recipe = Recipe.model_validate(content)
        sources = recipe.stage(STAGE).sources
        prepare(sources, STAGES[STAGE].rows, tmp_path / "data", data=recipe.data, seed=0)
        out = tmp_path / f"compiled-{compile}"
        train_stage(STAGE, recipe, data=tmp_path / "data", checkpoint=None, output=out)
        weights.append(load_file(out / "model.safetensors"))
    plain, compiled = weights
    assert compiled.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, atol=2e-4, rtol=1e-3, msg=name)
