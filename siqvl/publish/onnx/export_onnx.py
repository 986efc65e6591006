"""A checkpoint -> a folder with two ONNX graphs, compared with PyTorch before it is there."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from siqvl.checkpoint import CheckpointCard, verify_checkpoint
from siqvl.errors import UserError
from siqvl.files import atomic_folder, file_digests
from siqvl.generation.loop import end_ids
from siqvl.model.assemble import load_checkpoint
from siqvl.model.decoders import decoder_of
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.publish.onnx.graphs import DECODER_INPUTS, DecoderGraph, VisionGraph
from siqvl.publish.onnx.onnx_model import (
    DECODER,
    EXPORT,
    PACKAGES,
    VISION,
    ExportCard,
    OnnxModel,
)

Weights = Literal["fp32", "int8", "int4"]
OPSET = 20
#: What texts and pictures are made of; the processor of the checkpoint reads them.
BESIDE = (
    *("tokenizer.json", "tokenizer_config.json", "processor_config.json"),
    *("preprocessor_config.json", "chat_template.jinja", "generation_config.json"),
)
#: Weights that share a scale; every width of a SigLIP and a Qwen is a multiple of it.
BLOCK = 32
BITS = {"int8": 8, "int4": 4}
#: A graph of the same weights that differs by more, of scores, is another model.
MOST = 1e-3
FULL = "full_attention"


def export_onnx(checkpoint: Path, out: Path, weights: Weights = "fp32") -> ExportCard:
    """Write `vision.onnx`, `decoder.onnx` and what reads texts and pictures to a folder.

    Args:
        weights: of the decoder's and the tower's matrix products; int8 and int4 have a scale for
            every 32 of them (onnxruntime's MatMulNBits), and are computed with in fp32.

    Raises:
        UserError: the checkpoint is damaged, packages are missing, or the graphs' scores are not
            those of the model.
    """
    _check_packages()
    card = verify_checkpoint(checkpoint)
    try:
        model, processor = load_checkpoint(checkpoint, attn_implementation="eager")
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    if set(getattr(model.config.text_config, "layer_types", None) or [FULL]) != {FULL}:
        raise UserError("not exported: a layer of the language model has a sliding window")
    model.eval()
    with atomic_folder(out) as folder:
        _write_vision(model, folder / VISION)
        _write_decoder(model, folder / DECODER)
        if weights != "fp32":
            for name in (VISION, DECODER):
                quantize(folder / name, BITS[weights])
        for name in BESIDE:
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, folder / name)
        ends = end_ids(model, processor.tokenizer.eos_token_id)
        made = _described(model, card, ends, weights, folder, 0.0)
        _write_card(made, folder)
        difference = _difference(model, OnnxModel(folder))
        if weights == "fp32" and difference > MOST:
            raise UserError(
                f"not exported: scores of the graphs are {difference:.2g} from those of the model"
            )
        made = made.model_copy(update={"difference": difference})
        _write_card(made, folder)
    return made


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: {PACKAGES}") from None


def _described(
    model: SiQVLForConditionalGeneration,
    card: CheckpointCard,
    ends: Any,
    weights: Weights,
    folder: Path,
    difference: float,
) -> ExportCard:
    config, text = model.config, model.config.text_config
    return ExportCard(
        checkpoint=card.hash,
        weights=weights,
        opset=OPSET,
        image_size=config.vision_config.image_size,
        image_tokens=config.tokens_per_image,
        image_token_id=config.image_token_id,
        end_ids=sorted(ends),
        suppressed_ids=[config.image_token_id],
        layers=text.num_hidden_layers,
        heads=text.num_key_value_heads,
        head_size=decoder_of(text).head_size(text),
        hidden_size=text.hidden_size,
        difference=difference,
        files=file_digests(folder),
    )


def _write_card(card: ExportCard, folder: Path) -> None:
    (folder / EXPORT).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _write_vision(model: SiQVLForConditionalGeneration, file: Path) -> None:
    vision = model.config.vision_config
    pixels = torch.zeros(2, vision.num_channels, vision.image_size, vision.image_size)
    images = {0: torch.export.Dim("images")}
    _write(VisionGraph(model), (pixels,), [images], ["pixel_values"], ["image_features"], file)


def _write_decoder(model: SiQVLForConditionalGeneration, file: Path) -> None:
    """No axis of the example is 0 or 1 long, which torch.export would take for its only length."""
    text = model.config.text_config
    batch, sequence, past = 2, model.config.tokens_per_image + 5, 3
    ids = torch.full((batch, sequence), 5)
    ids[:, 2 : 2 + model.config.tokens_per_image] = model.config.image_token_id
    features = torch.zeros(batch * model.config.tokens_per_image, text.hidden_size)
    mask = torch.ones(batch, past + sequence, dtype=torch.long)
    graph = DecoderGraph(model)
    size = (batch, text.num_key_value_heads, past, graph.head_size)
    cache = [torch.zeros(size) for _ in range(2 * text.num_hidden_layers)]
    auto = torch.export.Dim.AUTO
    shapes: list[Any] = [{0: auto, 1: auto}, {0: auto}, {0: auto, 1: auto}]
    shapes.append([{0: auto, 2: auto} for _ in cache])
    names = [
        f"{layer}.{kind}" for layer in range(text.num_hidden_layers) for kind in ("key", "value")
    ]
    _write(
        graph,
        (ids, features, mask, cache),
        shapes,
        [*DECODER_INPUTS, *(f"past.{name}" for name in names)],
        ["logits", *(f"present.{name}" for name in names)],
        file,
    )


def _write(
    graph: torch.nn.Module,
    example: tuple[Any, ...],
    shapes: list[Any],
    inputs: list[str],
    outputs: list[str],
    file: Path,
) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that torchvision is not installed
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.export.export(
            graph.eval(), example, dynamic_shapes=tuple(shapes), strict=False
        )
        made = torch.onnx.export(
            program,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert made is not None
        made.save(str(file), external_data=True)


def quantize(file: Path, bits: int) -> None:
    """Replace the constant matrices of a graph by whole numbers with a scale for each 32.

    Embeddings, a head that is tied to them, norms and the patches' convolution stay as they are.
    """
    import onnx

    with _root_logger_as_it_is():  # the module sets it up for all of the process
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = onnx.load(str(file))
    quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=BLOCK, is_symmetric=True)
    quantizer.process()
    for old in (file, file.with_name(f"{file.name}.data")):
        old.unlink(missing_ok=True)
    onnx.save_model(
        quantizer.model.model,
        str(file),
        save_as_external_data=True,
        location=f"{file.name}.data",
        size_threshold=1024,
    )


@contextmanager
def _root_logger_as_it_is() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@torch.no_grad()
def _difference(model: SiQVLForConditionalGeneration, exported: OnnxModel) -> float:
    """The largest of scores of two prompts of unequal length, with a picture each."""
    generator = torch.Generator().manual_seed(0)
    vision, tokens = model.config.vision_config, model.config.tokens_per_image
    side = vision.image_size
    pixels = torch.randn(2, vision.num_channels, side, side, generator=generator)
    words = torch.randint(0, model.config.text_config.vocab_size, (2, 9), generator=generator)
    words[words == model.config.image_token_id] = 0
    marks = torch.full((2, tokens), model.config.image_token_id)
    ids = torch.cat([words[:, :4], marks, words[:, 4:]], 1)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    expected = model(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits.numpy()
    seen = exported.image_features(pixels.numpy()).reshape(2 * tokens, -1)
    found, _ = exported.scores(ids.numpy(), seen, mask.numpy(), exported.empty_cache(2))
    return float(np.abs(expected - found)[mask.numpy().astype(bool)].max())
