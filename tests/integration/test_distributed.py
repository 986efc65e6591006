"""Several training processes by torch elastic learn what one process learns."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from siqvl.data.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import Distributed, Recipe, Stage
from siqvl.tracking.runs import client, stage_run
from siqvl.training.launch import launch
from siqvl.training.run import train_stage

STAGE = Stage.PROJECTOR_ALIGNMENT


def with_processes(recipe: Recipe, processes: int, batch_size: int, **options: object) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["distributed"] = {"enabled": processes > 1, "processes": processes}
    content["stages"][STAGE.value] |= {"batch_size": batch_size, "max_steps": 3, **options}
    # each builds its share of the features, and none finds those of the other run
    content["features_dir"] = f"{content['output_dir']}/features-{processes}"
    return Recipe.model_validate(content)


@pytest.mark.integration
@pytest.mark.parametrize(
    "options",
    [
        {"batching": "grouped"},
        {"batching": "packed", "max_length": 64, "pack_length": 120, "cached_features": True},
    ],
    ids=["grouped", "packed, cached features"],
)
def test_two_processes_equal_one_of_twice_the_batch(
    tmp_path: Path,
    small_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    options: dict,
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = small_recipe(tmp_path)
    sources = recipe.stage(STAGE).sources
    prepare(sources, RowKind.SFT, tmp_path / "data", data=recipe.data, seed=0)
    curves, weights = [], []
    for processes, batch_size in ((1, 8), (2, 4)):
        variant = with_processes(recipe, processes, batch_size, **options)
        out = tmp_path / f"checkpoint-{processes}"
        with stage_run(variant, f"{processes} processes", None, {}) as log:
            train_stage(
                STAGE, variant, data=tmp_path / "data", checkpoint=None, output=out, log=log
            )
        points = client(log.uri).get_metric_history(log.run_id, "train/loss")
        curves.append([point.value for point in points])
        weights.append(load_file(out / "model.safetensors"))
    assert len(curves[0]) == 3
    assert curves[1] == pytest.approx(curves[0], abs=2e-4)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=2e-4, rtol=1e-3)


def fail(message: str) -> None:
    raise UserError(message)


@pytest.mark.integration
def test_a_failing_process_says_why() -> None:
    with pytest.raises(RuntimeError, match="the data is not there"):
        launch(fail, "the data is not there", Distributed(enabled=True, processes=2))


def test_one_process_needs_no_launcher() -> None:
    seen: list[int] = []
    launch(seen.append, 7, Distributed(enabled=False, processes=4))
    launch(seen.append, 8, Distributed(enabled=True, processes=1))
    assert seen == [7, 8]


def test_several_gpus_for_one_process_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face's Trainer would take all of them, by DataParallel."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UserError, match=r"4 GPUs: set distributed.enabled: true .*processes: 4"):
        launch(fail, "never started", Distributed())
