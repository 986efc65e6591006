"""Exported graphs beside PyTorch: scores, greedy answers, every shape, and whole-number weights."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from siqvl.cli.main import main
from siqvl.errors import UserError
from siqvl.model import load_checkpoint
from siqvl.recipe import Stage
from tests.made_checkpoint import signed
from tests.model.tiny_siqvl import batch_of, picture, tiny_qwen3_config, write_language
from tests.publish.conftest import Run
from tests.small_checkpoint import small_checkpoint

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from siqvl.publish.onnx.export_onnx import export_onnx
from siqvl.publish.onnx.onnx_model import OnnxModel

TOKENS = 8
ROWS = [
    ("a", [picture(0)]),
    ("what is in the picture?", []),
    ("b c", [picture(1), picture(2)]),
    ("which is it? " * 5, [picture(3)]),
]


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "model"
    done = CliRunner().invoke(main, ["export", str(run.checkpoint()), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "largest difference of a score to PyTorch's: " in done.stdout
    return out


@pytest.fixture(scope="module")
def reference(run: Run):
    """transformers' own class, with eager attention, and its processor."""
    model, processor = load_checkpoint(run.checkpoint(), attn_implementation="eager")
    return model.eval(), processor


def inputs_of(processor, rows) -> dict[str, np.ndarray | None]:
    batch = batch_of(processor, rows)
    pixels = batch.get("pixel_values")
    return {
        "input_ids": batch["input_ids"].numpy(),
        "attention_mask": batch["attention_mask"].numpy(),
        "pixel_values": None if pixels is None else pixels.numpy(),
    }


@torch.no_grad()
@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[1:2], ROWS[2:3], ROWS[:2], ROWS])
def test_scores_are_those_of_the_model(exported: Path, reference, rows) -> None:
    """One row and several, with no, one and two pictures, of one length and padded."""
    model, processor = reference
    onnx = OnnxModel(exported, threads=1)
    batch = batch_of(processor, rows)
    expected = model(**batch).logits.numpy()
    features = onnx.no_features()
    if "pixel_values" in batch:
        found = onnx.image_features(batch["pixel_values"].numpy())
        seen = model.get_image_features(batch["pixel_values"], return_dict=True).pooler_output
        np.testing.assert_allclose(found, seen.numpy(), rtol=0, atol=1e-4)
        features = found.reshape(-1, found.shape[-1])
    mask = batch["attention_mask"].numpy()
    ids = batch["input_ids"].numpy()
    logits, cache = onnx.scores(ids, features, mask, onnx.empty_cache(len(ids)))
    real = mask.astype(bool)
    assert np.abs(expected[real]).max() > 0.1
    np.testing.assert_allclose(logits[real], expected[real], rtol=0, atol=1e-4)
    assert cache[0].shape[2] == ids.shape[1]


@torch.no_grad()
def test_a_prompt_in_pieces_gives_the_same_scores(exported: Path, reference) -> None:
    """The cache of the first piece, the rest behind it, one token at a time."""
    model, processor = reference
    onnx = OnnxModel(exported, threads=1)
    batch = batch_of(processor, ROWS[:2])
    ids, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
    expected = model(**batch).logits.numpy()
    features = onnx.image_features(batch["pixel_values"].numpy()).reshape(-1, 32)
    cut = ids.shape[1] - 4
    first, cache = onnx.scores(ids[:, :cut], features, mask[:, :cut], onnx.empty_cache(2))
    found = [first]
    for place in range(cut, ids.shape[1]):
        step = ids[:, place : place + 1]
        logits, cache = onnx.scores(step, onnx.no_features(), mask[:, : place + 1], cache)
        found.append(logits)
    real = mask.astype(bool)
    logits = np.concatenate(found, 1)
    np.testing.assert_allclose(logits[real], expected[real], rtol=0, atol=1e-4)


@torch.no_grad()
def test_greedy_answers_are_equal(exported: Path, reference) -> None:
    model, processor = reference
    onnx = OnnxModel(exported, threads=1)
    written = onnx.write(**inputs_of(processor, ROWS), max_new_tokens=TOKENS)
    batch = batch_of(processor, ROWS)
    ids = model.generate(**batch, max_new_tokens=TOKENS, do_sample=False)
    expected = ids[:, batch["input_ids"].shape[1] :].tolist()
    for row, one in zip(expected, written, strict=True):
        ends = [place for place, token in enumerate(row) if token in onnx.card.end_ids]
        assert one.ids == row[: ends[0]] if ends else row
        assert one.ended == bool(ends)
    assert len({tuple(one.ids) for one in written}) > 1


def test_a_placeholder_that_was_written_is_a_token(exported: Path, reference) -> None:
    model, _ = reference
    onnx = OnnxModel(exported, threads=1)
    ids = np.array([[5, model.config.image_token_id, 7]])
    logits, _ = onnx.scores(ids, onnx.no_features(), np.ones_like(ids), onnx.empty_cache(1))
    embeds = model.get_input_embeddings()(torch.from_numpy(ids))
    with torch.no_grad():
        expected = model(inputs_embeds=embeds).logits.numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_the_folder_says_what_it_is(exported: Path, run: Run) -> None:
    card = OnnxModel(exported).card
    assert card.checkpoint == run.cards[Stage.VQA_SFT].hash
    assert (card.weights, card.image_tokens, card.layers) == ("fp32", 4, 2)
    assert 0 < card.difference < 1e-4
    for name, digest in card.files.items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest
    assert {"vision.onnx", "decoder.onnx", "tokenizer.json"} <= card.files.keys()


def test_it_runs_without_torch(exported: Path) -> None:
    program = (
        "import sys, pathlib, numpy as np\n"
        "class Refused:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'transformers'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refused())\n"
        "from siqvl.publish.onnx.onnx_model import OnnxModel\n"
        "model = OnnxModel(pathlib.Path(sys.argv[1]), threads=1)\n"
        "ids = np.array([[5, 6, 7]])\n"
        "print(len(model.write(ids, np.ones_like(ids), None, 3)[0].ids))\n"
    )
    command = [sys.executable, "-c", program, str(exported)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 3


@pytest.mark.parametrize(("weights", "near"), [("int8", 0.1), ("int4", 1.5)])
def test_whole_number_weights_are_smaller_and_near(
    exported: Path, run: Run, tmp_path: Path, reference, weights: str, near: float
) -> None:
    """How near is what the model bears: its weights are ten times the usual ones."""
    out = tmp_path / weights
    options = ["--weights", weights, "-o", str(out)]
    done = CliRunner().invoke(main, ["export", str(run.checkpoint()), *options])
    assert done.exit_code == 0, done.output
    model, processor = reference
    batch = batch_of(processor, ROWS[1:2])
    ids, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
    exact, found = (
        one.scores(ids, one.no_features(), mask, one.empty_cache(1))[0]
        for one in (OnnxModel(exported, threads=1), OnnxModel(out, threads=1))
    )
    spread = exact.std()
    assert 0 < np.abs(exact - found).mean() < near * spread

    def nodes(folder: Path) -> list[str]:
        import onnx

        return [node.op_type for node in onnx.load(str(folder / "decoder.onnx")).graph.node]

    assert "MatMulNBits" not in nodes(exported)
    # seven of each layer; the head is tied to the embedding, which stays as it is
    assert nodes(out).count("MatMulNBits") == 7 * model.config.text_config.num_hidden_layers


def test_what_is_no_export_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no export\.json"):
        OnnxModel(run.checkpoint())
    (tmp_path / "thesis.txt").write_text("years of work")
    done = CliRunner().invoke(main, ["export", str(run.checkpoint()), "-o", str(tmp_path)])
    assert done.exit_code == 1
    assert "is there already" in done.stderr
    inside = run.checkpoint() / "onnx"
    done = CliRunner().invoke(main, ["export", str(run.checkpoint()), "-o", str(inside)])
    assert done.exit_code == 1
    assert f"{inside} lies in the checkpoint" in done.stderr
    assert not inside.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_sliding_window_is_refused(run: Run, tmp_path: Path) -> None:
    """The graphs see all that came before: such a model would be another one."""
    folder = Path(shutil.copytree(run.checkpoint(), tmp_path / "sliding"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"use_sliding_window": True, "sliding_window": 4}
    config["text_config"] |= {"layer_types": ["full_attention", "sliding_attention"]}
    (folder / "config.json").write_text(json.dumps(config))
    signed(folder)
    with pytest.raises(UserError, match="has a sliding window"):
        export_onnx(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_a_qwen3_is_exported_as_well(tmp_path: Path) -> None:
    """Its heads are wider than hidden / heads, and normed; answers are those of `generate`."""
    write_language(tmp_path / "qwen3", tiny_qwen3_config())
    vision = Path(__file__).parents[2] / "recipes" / "tiny_base" / "vision"
    model = {"vision": str(vision), "language": str(tmp_path / "qwen3"), "max_image_tokens": 4}
    checkpoint = small_checkpoint(tmp_path, model=model)
    card = export_onnx(checkpoint, tmp_path / "onnx")
    assert (card.head_size, card.heads, card.layers) == (12, 2, 3)
    reference, processor = load_checkpoint(checkpoint, attn_implementation="eager")
    batch = inputs_of(processor, ROWS)
    found = OnnxModel(tmp_path / "onnx", threads=1).write(**batch, max_new_tokens=TOKENS)
    tensors = {name: torch.from_numpy(one) for name, one in batch.items() if one is not None}
    out = reference.generate(**tensors, max_new_tokens=TOKENS, do_sample=False)
    written = out[:, batch["input_ids"].shape[1] :].tolist()
    assert [row[: len(one.ids)] for row, one in zip(written, found, strict=True)] == [
        one.ids for one in found
    ]
    assert len({token for one in found for token in one.ids}) > 2
