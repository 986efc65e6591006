"""What a stage says about its rows before its first step, and how long it goes on."""

from pathlib import Path

import pytest

from siqvl.data.collate import SFTCollator
from siqvl.data.encode import encode_dataset
from siqvl.data.loader import TrainingLoader
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Recipe, Stage
from siqvl.tracking.runs import client, stage_run
from siqvl.training.loop.planned import training_loader
from siqvl.training.stage import train_stage
from tests.training.changed_recipe import changed


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns


def test_the_mixture_that_is_trained_on_is_logged_before_the_first_step(
    trained, tmp_path: Path
) -> None:
    """Two sources of 24 rows, the first counted three times: 72 + 24 rows an epoch."""
    stage = Stage.COT_SFT
    sources = trained.recipe.model_dump(mode="json")["stages"][stage.value]["sources"]
    sources[0]["weight"] = 3.0
    recipe = changed(
        trained.recipe,
        stage,
        sources=sources,
        batching="padded",
        batch_size=48,
        max_steps=None,
        epochs=1,
    )
    with stage_run(recipe, "mixture", None, {}) as log:
        card = train_stage(
            stage,
            recipe,
            data=trained.data(stage),
            checkpoint=trained.parent(stage),
            output=tmp_path / "out",
            log=log,
        )
    logged = client(log.uri).get_run(log.run_id).data.metrics
    assert logged["data/source 0 shapes/rows"] == 72
    assert logged["data/source 1 shapes/rows"] == 24
    assert logged["data/source 0 shapes/share"] == 0.75
    assert 0 < logged["data/padding_share"] < 1
    assert card.metrics["data/source 0 shapes/tokens"] == logged["data/source 0 shapes/tokens"]
    steps = client(log.uri).get_metric_history(log.run_id, "train/loss")
    assert [point.step for point in steps] == [1, 2]  # 96 rows in batches of 48


def loader_of(trained, recipe: Recipe, stage: Stage) -> TrainingLoader:
    dataset, manifest = load_prepared(trained.data(stage), RowKind.SFT)
    _, processor = load_checkpoint(trained.checkpoint(stage))
    figures = recipe.stage(stage)
    return training_loader(
        encode_dataset(dataset, processor, kind=RowKind.SFT, max_length=figures.max_length),
        SFTCollator(processor),
        stage=figures,
        recipe=recipe,
        manifest=manifest,
    )


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 3), (1, 6), (2.5, 15)])
def test_epochs_say_how_long_a_stage_goes_on(trained, epochs: float, steps: int) -> None:
    """24 rows, 4 a step."""
    options = {"batching": "padded", "batch_size": 4, "max_steps": None, "epochs": epochs}
    recipe = changed(trained.recipe, Stage.VQA_SFT, **options)
    assert loader_of(trained, recipe, Stage.VQA_SFT).plan.steps == steps


def test_each_process_that_torch_elastic_starts_takes_its_share(
    trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"batching": "padded", "batch_size": 2, "max_steps": 3}
    recipe = changed(trained.recipe, Stage.VQA_SFT, **options)
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        loader = loader_of(trained, recipe, Stage.VQA_SFT)
        shares.append([batch["input_ids"].shape[0] for batch in loader.dataloader()])
        assert loader.plan.sequences_per_step == 4
    rows = [row for step in range(3) for rank in (0, 1) for row in loader.plan.batch(step, 0, rank)]
    assert shares == [[2, 2, 2], [2, 2, 2]]
    assert len(set(rows)) == 12
