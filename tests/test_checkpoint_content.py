"""Every door refuses a checkpoint whose files are not those that its card names, and says which."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from siqvl import files
from siqvl.checkpoint import CARD, read_card, verify_checkpoint, write_checkpoint
from siqvl.errors import UserError
from siqvl.evaluation.evaluate import evaluate
from siqvl.model.assemble import load_checkpoint
from siqvl.model.finite_weights import non_finite
from siqvl.preferences.sample_pairs import add_sampled_pairs
from siqvl.recipe import Recipe, Stage
from siqvl.registry.versions import Registry, keep_model
from siqvl.serving.answering import Answerer
from siqvl.serving.settings import ServingSettings
from siqvl.tracking.runs import client, start_run
from siqvl.training.stage import train_stage
from tasks.contracts import Checkpoint, _hash_of, _model
from tests.made_checkpoint import by_hand, signed
from tests.preferences.conftest import SAMPLED

WEIGHTS, TOKENIZER, INDEX = "model.safetensors", "tokenizer.json", "model.safetensors.index.json"


@pytest.fixture
def checkpoint(trained, tmp_path: Path) -> Path:
    """A copy to be damaged, which DPO may continue from."""
    return Path(shutil.copytree(trained.checkpoint(Stage.COT_SFT), tmp_path / "checkpoint"))


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-100] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def swap_two_tokens(folder: Path) -> None:
    content = json.loads((folder / TOKENIZER).read_text())
    vocabulary = content["model"]["vocab"]
    one, other = list(vocabulary)[40:42]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (folder / TOKENIZER).write_text(json.dumps(content))


def weights_with(folder: Path, value: float) -> None:
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if "multi_modal_projector" in name)
    weights[name].view(-1)[3] = value
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def lead_outside(folder: Path) -> None:
    """As transformers reads weights in several files: the index says which file has which."""
    (folder / WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
    shutil.copy(folder.parent / "elsewhere.safetensors", folder / "model-1.safetensors")
    named = dict.fromkeys(load_file(folder / "model-1.safetensors"), "../elsewhere.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": named}))
    signed(folder)  # and the card names this index


def card_of_0_1_0(folder: Path) -> None:
    """It had one hash, and no files."""
    content = json.loads((folder / CARD).read_text())
    del content["files"]
    (folder / CARD).write_text(json.dumps(content))


def damage_an_older_one(folder: Path) -> None:
    card_of_0_1_0(folder)
    swap_two_tokens(folder)


def lose_four(folder: Path) -> None:
    for name in (TOKENIZER, "config.json", "modeling.py", "projector.py"):
        (folder / name).unlink()


def another_hash(folder: Path) -> None:
    content = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(content | {"hash": "a" * 64}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda c: (c / TOKENIZER).unlink(), f"{TOKENIZER} is missing"),
    "flipped": (flip_a_bit, f"{WEIGHTS} was changed after it was written"),
    "swapped": (swap_two_tokens, f"{TOKENIZER} was changed after it was written"),
    "NaN": (lambda c: weights_with(c, torch.nan), f"{WEIGHTS} was changed after it was written"),
    "added": (lambda c: (c / INDEX).write_text("{}"), f"{INDEX} was added after it was written"),
    "outside": (
        lead_outside,
        f"{INDEX} names ../elsewhere.safetensors, which is no file of the checkpoint",
    ),
    "0.1.0": (damage_an_older_one, "its files are others (0.1.0"),
    "hash": (another_hash, f"`hash` in {CARD} is not that of its files"),
    "several": (lose_four, "projector.py is missing and 1 more; copy it again"),
}


def train(checkpoint: Path, recipe: Recipe) -> None:
    data, out = checkpoint.parent / "no data", checkpoint.parent / "out"
    train_stage(Stage.DPO, recipe, data=data, checkpoint=checkpoint, output=out)


def score(checkpoint: Path, recipe: Recipe) -> None:
    data, out = checkpoint.parent / "no data", checkpoint.parent / "out"
    evaluate(recipe, checkpoint=checkpoint, data=data, out=out)


def serve(checkpoint: Path, recipe: Recipe) -> None:
    Answerer.load(checkpoint, ServingSettings.of(recipe))


def sample(checkpoint: Path, recipe: Recipe) -> None:
    content = recipe.model_dump(mode="json")
    content["stages"]["dpo"]["sampled"] = SAMPLED
    nothing, sampling = checkpoint.parent / "no data", Recipe.model_validate(content)
    add_sampled_pairs(
        sampling, checkpoint=checkpoint, data=nothing, benchmarks=nothing, out=nothing
    )


DOORS = {"training": train, "evaluation": score, "serving": serve, "sampling": sample}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_the_card_does_not_name_is_refused(
    trained, checkpoint: Path, damage: str, door: str
) -> None:
    spoil, sentence = DAMAGES[damage]
    spoil(checkpoint)
    with pytest.raises(UserError) as caught:
        DOORS[door](checkpoint, trained.recipe)
    assert sentence in caught.value.message
    assert str(checkpoint) in caught.value.message
    assert "\n" not in caught.value.message
    assert not (checkpoint.parent / "out").exists()


def test_no_version_is_registered(trained, checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns
    content = trained.recipe.model_dump(mode="json")
    content["tracking"]["uri"] = f"sqlite:///{tmp_path}/mlflow.db"
    log = start_run(Recipe.model_validate(content), "stage")
    registry = Registry(log.uri, "damaged")
    (checkpoint / TOKENIZER).unlink()
    for register in (registry.register, lambda log, path: keep_model(log, path, registry)):
        with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
            register(log, checkpoint)
    assert client(log.uri).search_model_versions() == []
    assert client(log.uri).list_artifacts(log.run_id) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_flytes_cache_goes_by_what_is_there(checkpoint: Path, damage: str) -> None:
    content = {
        path.name: path.read_bytes()
        for path in checkpoint.iterdir()
        if path.name not in (CARD, "history.json")
    }
    assert _hash_of(_model, Checkpoint(str(checkpoint))) == f"cot_sft-{by_hand(content)}"
    DAMAGES[damage][0](checkpoint)
    assert _hash_of(_model, Checkpoint(str(checkpoint))) is None  # the task will say why


def test_the_card_of_0_1_0_is_compared_as_a_whole(checkpoint: Path) -> None:
    card_of_0_1_0(checkpoint)
    assert verify_checkpoint(checkpoint, Stage.COT_SFT).files is None


def test_a_history_is_no_content_and_an_unreadable_file_is_named(checkpoint: Path) -> None:
    (checkpoint / "history.json").unlink()
    assert verify_checkpoint(checkpoint) == read_card(checkpoint)

    def unreadable(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "file_sha256", unreadable)
        shutil.copy(checkpoint / TOKENIZER, checkpoint / "copy")
        with pytest.raises(UserError, match=r"checkpoint/\S+ cannot be read: Permission denied"):
            verify_checkpoint(checkpoint)


def test_files_are_read_once_and_again_when_they_change(checkpoint: Path, monkeypatch) -> None:
    read: list[str] = []
    digest = files.file_sha256
    monkeypatch.setattr(files, "file_sha256", lambda path: read.append(path.name) or digest(path))
    time.sleep(2 * files.YOUNG / 1e9)
    verify_checkpoint(checkpoint)
    assert len(read) == len(set(read)) == len(list(checkpoint.iterdir())) - 2
    for _ in range(3):
        verify_checkpoint(checkpoint)
    assert len(read) == len(set(read))
    stat = (checkpoint / WEIGHTS).stat()
    flip_a_bit(checkpoint)
    os.utime(checkpoint / WEIGHTS, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if it had not
    with pytest.raises(UserError, match="changed after it was written"):
        verify_checkpoint(checkpoint)
    assert read.count(WEIGHTS) == 2
    assert sum(read.count(name) for name in read if name != WEIGHTS) == len(set(read)) - 1


def nan(checkpoint: Path) -> str:
    """A checkpoint whose card is honest: it was written with such weights."""
    weights_with(checkpoint, torch.nan)
    signed(checkpoint)
    verify_checkpoint(checkpoint)
    return r"weight model\.multi_modal_projector\.\S+ holds NaN or infinite values"


def test_weights_that_are_no_numbers_are_not_loaded(trained, checkpoint: Path, tmp_path) -> None:
    with pytest.raises(UserError, match=nan(checkpoint)):
        serve(checkpoint, trained.recipe)
    with pytest.raises(ValueError, match=nan(checkpoint)):
        load_checkpoint(checkpoint)


def test_and_not_trained_on(trained, checkpoint: Path, tmp_path: Path) -> None:
    sentence = nan(checkpoint)
    with pytest.raises(UserError, match=sentence):
        train_stage(
            Stage.DPO,
            trained.recipe,
            data=trained.data(Stage.DPO),
            checkpoint=checkpoint,
            output=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_and_not_written(trained, tmp_path: Path, value: float) -> None:
    parent = read_card(trained.checkpoint(Stage.COT_SFT))
    model, processor = load_checkpoint(trained.checkpoint(Stage.COT_SFT))
    with torch.no_grad():
        model.model.language_model.norm.weight[5] = value
    with pytest.raises(UserError) as caught:
        write_checkpoint(
            tmp_path / "out",
            model,
            processor,
            stage=Stage.DPO,
            parent=parent,
            recipe=trained.recipe,
            data_fingerprint="d" * 64,
            code_version="0.1.0",
            mlflow_run=None,
            metrics={},
            history=[],
        )
    assert caught.value.message == (
        "weight model.language_model.norm.weight holds NaN or infinite values, so no checkpoint "
        f"is written to {tmp_path}/out; lower `learning_rate`, or set `precision: fp32`"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_tensor_that_is_not_finite_is_found(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    good = {
        "ends": torch.tensor([largest, -largest, 0.0], dtype=dtype),
        "empty": torch.zeros(0, dtype=dtype),
        "ids": torch.arange(3),
        "scalar": torch.tensor(1.0, dtype=dtype),
    }
    assert non_finite(good) is None
    for value in (torch.nan, torch.inf, -torch.inf):
        for place in range(7):
            bad = torch.ones(7, dtype=dtype)
            bad[place] = value
            assert non_finite(good | {"bad": bad, "after": bad}) == "bad"
