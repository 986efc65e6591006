"""Several training processes by torch elastic learn what one process learns."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from siqvl.checkpoint import read_history
from siqvl.data.collate import SFTCollator
from siqvl.data.encode import encode_sft
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind, sft_row
from siqvl.errors import UserError
from siqvl.model.assemble import assemble
from siqvl.model.configuration import SiQVLConfig
from siqvl.recipe import Distributed, Recipe, Stage
from siqvl.stages import freeze
from siqvl.tracking.runs import client, stage_run
from siqvl.training.loop.arguments import trainer_arguments
from siqvl.training.loop.launch import launch
from siqvl.training.stage import train_stage

STAGE = Stage.PROJECTOR_ALIGNMENT


def with_processes(recipe: Recipe, processes: int, batch_size: int, **options: object) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["distributed"] = {"enabled": processes > 1, "processes": processes}
    content["stages"][STAGE.value] |= {"batch_size": batch_size, "max_steps": 3, **options}
    # each builds its share of the features, and none finds those of the other run
    content["features_dir"] = f"{content['output_dir']}/features-{processes}"
    return Recipe.model_validate(content)


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
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


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
@pytest.mark.parametrize(
    ("stage", "options"),
    [
        (Stage.VQA_SFT, {"batching": "packed", "max_length": 64, "pack_length": 120, "ema": 0.5}),
        (Stage.COT_SFT, {"batching": "grouped", "learning_rates": {"projector": 1e-4}}),
        (Stage.DPO, {"batching": "grouped", "adapter": {"rank": 4}, "saving_steps": 2}),
    ],
    ids=["packed, mean of weights", "grouped, two rates", "pairs, adapters"],
)
def test_a_step_is_the_same_however_it_is_divided(
    trained, tmp_path: Path, stage: Stage, options: dict
) -> None:
    """Into one batch, accumulated ones, and processes that accumulate: losses, norms, weights."""
    histories, weights = [], []
    for processes, batch_size, accumulation in ((1, 4, 1), (1, 1, 4), (2, 1, 2)):
        content = trained.recipe.model_dump(mode="json")
        content["distributed"] = {"enabled": processes > 1, "processes": processes}
        division = {"batch_size": batch_size, "accumulation": accumulation, "max_steps": 4}
        content["stages"][stage.value] |= division | options
        out = tmp_path / f"checkpoint-{len(weights)}"
        train_stage(
            stage,
            Recipe.model_validate(content),
            data=trained.data(stage),
            checkpoint=trained.parent(stage),
            output=out,
        )
        history = read_history(out)
        histories.append([[entry["loss"], entry["grad_norm"]] for entry in history])
        weights.append(load_file(out / "model.safetensors"))
    whole = histories[0]
    assert len(whole) == 4
    assert abs(whole[0][0] - whole[3][0]) > 0.01  # it learns something
    for other in histories[1:]:
        for one, two in zip(whole, other, strict=True):
            assert two == pytest.approx(one, abs=2e-4, rel=2e-3)
    for other in weights[1:]:
        for name, value in weights[0].items():
            torch.testing.assert_close(other[name], value, atol=2e-4, rtol=1e-3, msg=name)


def sharded_gradients(folder: str) -> None:
    """A training process: gradients of its half of the rows, weights shared out by FSDP2."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo")
    model, collate, rows = tiny_and_rows()
    for layer in model.model.language_model.layers:
        fully_shard(layer)
    fully_shard(model)
    half = collate(rows[dist.get_rank() :: 2])
    learned = torch.tensor([float((half["labels"] != -100).sum())])
    dist.all_reduce(learned)
    output = model(**half, head_chunk=4, use_cache=False)
    (-output.log_probs.sum() * 2 / learned.item()).backward()  # FSDP takes the mean
    gathered = {
        name: weight.grad.full_tensor()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    if dist.get_rank() == 0:
        save_file(gathered, Path(folder) / "gradients.safetensors")
    dist.destroy_process_group()


def tiny_and_rows():
    """A small model in which projector and language model learn, and six encoded rows."""
    torch.manual_seed(0)
    base = Path(__file__).parents[2] / "recipes" / "tiny_base"
    model, processor = assemble(
        str(base / "vision"),
        str(base / "language"),
        pixel_shuffle_factor=None,
        max_image_tokens=4,
        attn_implementation="eager",
    )
    freeze(model.train(), ["projector", "language_model"])
    pictures = [Image.new("RGB", (64, 64), color) for color in ("red", "green", "blue")] * 2
    rows = []
    for number, picture in enumerate(pictures):
        answer = "a long red " * number + "one."
        row = sft_row(f"made/{number}", [picture], "what color?", answer, source="made")
        one = encode_sft(row, processor)
        rows.append({"input_ids": one.input_ids, "labels": one.labels, "images": [picture]})
    return model, SFTCollator(processor), rows


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
def test_the_head_without_logits_works_on_weights_that_fsdp_shares_out(tmp_path: Path) -> None:
    """accelerate turns FSDP on for GPUs alone; sharding itself runs on CPUs too."""
    launch(sharded_gradients, str(tmp_path), Distributed(enabled=True, processes=2))
    model, collate, rows = tiny_and_rows()
    model(**collate(rows)).loss.backward()  # transformers' own loss, over all rows
    found = load_file(tmp_path / "gradients.safetensors")
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_fsdp_without_gpus_is_refused(
    tmp_path: Path, small_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(
        tmp_path, distributed={"enabled": True, "processes": 2, "strategy": "fsdp"}
    )
    figures = recipe.stage(STAGE)
    with pytest.raises(UserError, match="fsdp needs GPUs"):
        trainer_arguments(figures, recipe, SiQVLConfig(), tmp_path, 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    arguments = trainer_arguments(figures, recipe, SiQVLConfig(), tmp_path, 3)
    assert arguments["fsdp"]
    names = {type(module).__name__ for module in tiny_and_rows()[0].modules()}
    assert set(arguments["fsdp_config"]["transformer_layer_cls_to_wrap"]) <= names


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


def test_one_machine_does_not_stand_for_several() -> None:
    """It would train in silence by a part of the batch."""
    several = Distributed(enabled=True, nodes=2, shared_dir="/shared")
    with pytest.raises(UserError, match=r"nodes is 2, but this task trains on one machine"):
        launch(fail, "never started", several)


def test_several_gpus_for_one_process_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face's Trainer would take all of them, by DataParallel."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UserError, match=r"4 GPUs: set distributed.enabled: true .*processes: 4"):
        launch(fail, "never started", Distributed())
