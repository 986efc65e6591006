"""Puts a SiQ-VL together: a SigLIP checkpoint + a decoder's checkpoint -> (model, processor).

Weights are only ever read from safetensors; a pickle can run code when it is opened.
"""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    SiglipVisionModel,
)

from .chat_templates import chat_template, thinking_of
from .configuration import SiQVLConfig
from .decoders import DECODERS, QWEN2, decoder_of, supported
from .finite_weights import non_finite
from .modeling import SiQVLForConditionalGeneration
from .processing import IMAGE_TOKEN, SiQVLProcessor
from .projector import SiQVLProjector
from .weight_files import one_by_one

END_OF_TURN = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"

#: What SigLIP and SigLIP 2 of a fixed resolution call themselves, whole or the vision half alone.
TOWERS = ("siglip", "siglip_vision_model")
_NAFLEX = ", and this is SigLIP 2 NaFlex, which reads pictures of any size"
_OTHER_TOWERS = {"siglip2": _NAFLEX, "siglip2_vision_model": _NAFLEX}


def assemble(
    vision: str | Path,
    language: str | Path,
    *,
    pixel_shuffle_factor: int | None = None,
    max_image_tokens: int = 256,
    init: Literal["pretrained", "config"] = "pretrained",
    random_tower: bool = False,
    attn_implementation: str = "sdpa",
    dtype: str | torch.dtype = "float32",
    system_prompt: str | None = None,
    thinking: bool | None = None,
    trust_remote_code: bool = False,
    vision_revision: str | None = None,
    language_revision: str | None = None,
) -> tuple[SiQVLForConditionalGeneration, SiQVLProcessor]:
    """Builds a model and its processor from two published parts.

    Args:
        vision: SigLIP or SigLIP2 (fixed resolution), a full model or its vision half: hub id or
            folder with config.json and preprocessor_config.json.
        language: a decoder of `siqvl.model.decoders`: hub id or folder with config.json and the
            tokenizer's files.
        pixel_shuffle_factor: see `SiQVLConfig`; None derives it from `max_image_tokens`.
        init: "pretrained" reads both parts' weights; "config" needs no weights and draws random
            ones. The projector is new either way, see `init_projector`.
        random_tower: draw the tower's weights from its config, whatever `init` says of the language
            model: the control that shows what a trained tower is worth. torch's seed decides.
        dtype: of every weight, for example "bfloat16".
        system_prompt: the system message of conversations that bring none. None: the family's own;
            "": no system turn; any other text: that text. Saved in the checkpoint's chat template.
        thinking: whether answers begin with a block of thoughts, see `thinking_of`; saved as that.
        trust_remote_code: passed on to config, tokenizer and image processor loading.
        vision_revision, language_revision: hub revisions to pin.

    Raises:
        ValueError: a part of another model family, missing files, a picture size the tower was not
            built for, or a tokenizer that does not fit the embeddings. Each names what was found.
    """
    if init not in ("pretrained", "config"):
        raise ValueError(f"init must be 'pretrained' or 'config', got {init!r}.")
    options = {"dtype": _as_dtype(dtype), "attn_implementation": attn_implementation}
    vision_part = _Part(vision, vision_revision, trust_remote_code)
    language_part = _Part(language, language_revision, trust_remote_code)
    config, processor = _read_parts(
        vision_part, language_part, pixel_shuffle_factor, max_image_tokens, system_prompt, thinking
    )
    if init == "config":
        _forget_folders(config)
        model = SiQVLForConditionalGeneration._from_config(config, **options)
    else:
        model = _join(config, None if random_tower else vision_part, language_part, **options)
    init_projector(model)
    model.generation_config = _generation_config(processor.tokenizer)
    return model.eval(), processor


def read_processor(
    vision: str | Path,
    language: str | Path,
    *,
    pixel_shuffle_factor: int | None = None,
    max_image_tokens: int = 256,
    system_prompt: str | None = None,
    thinking: bool | None = None,
    trust_remote_code: bool = False,
    vision_revision: str | None = None,
    language_revision: str | None = None,
    local_files_only: bool = False,
) -> SiQVLProcessor:
    """Builds the processor that `assemble` would, without reading or making any weights.

    Args:
        local_files_only: take of the hub only what is in its cache on this machine.

    Raises:
        ValueError: as `assemble`.
        OSError: what is needed is not there.
    """
    vision_part = _Part(vision, vision_revision, trust_remote_code, local_files_only)
    language_part = _Part(language, language_revision, trust_remote_code, local_files_only)
    return _read_parts(
        vision_part, language_part, pixel_shuffle_factor, max_image_tokens, system_prompt, thinking
    )[1]


def read_part(
    key: Literal["vision", "language"], source: str | Path, *, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """The configuration of one of the two parts, which is of a family that can be used.

    Raises:
        ValueError: as `assemble`.
    """
    part = _Part(source, None, trust_remote_code)
    if key == "vision":
        return _read_config(part, "vision model", TOWERS, _no_tower)
    return _read_config(part, "language model", DECODERS, _no_decoder)


def load_checkpoint(
    path: str | Path, *, dtype: str | torch.dtype = "float32", attn_implementation: str = "sdpa"
) -> tuple[SiQVLForConditionalGeneration, SiQVLProcessor]:
    """Loads a SiQ-VL checkpoint folder: local safetensors, this package's classes.

    Raises:
        ValueError: no folder, no safetensors, another model's folder, weights that are missing or
            not finite, or a processor whose image takes another number of tokens than the model's.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} is not a SiQ-VL checkpoint: it has no config.json.")
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    found = config.get("model_type")
    text = (config.get("text_config") or {}).get("model_type", QWEN2.model_type)
    if found != SiQVLConfig.model_type:
        raise ValueError(f"{path} holds model_type '{found}', expected '{SiQVLConfig.model_type}'.")
    if text not in DECODERS:
        raise ValueError(
            f"{path} has a language model of model_type '{text}'; supported are {supported()}."
        )
    if not any(path.glob("*.safetensors")):
        raise ValueError(f"{path} holds no *.safetensors file; other weight formats are refused.")
    model = _load_weights(
        SiQVLForConditionalGeneration,
        path,
        dtype=_as_dtype(dtype),
        attn_implementation=attn_implementation,
        local_files_only=True,
    )
    processor = SiQVLProcessor.from_pretrained(path, local_files_only=True)
    if processor.num_image_tokens != model.config.tokens_per_image:
        raise ValueError(
            f"{path}: the processor makes {processor.num_image_tokens} tokens an image, the model "
            f"expects {model.config.tokens_per_image}."
        )
    return model, processor


def build_on_meta(config: SiQVLConfig) -> SiQVLForConditionalGeneration:
    """The model's shapes without its memory: for parameter counts, FLOPs and memory estimates.

    Raises:
        ValueError: the language model is of no supported family.
    """
    decoder_of(config.text_config)
    with torch.device("meta"):
        return SiQVLForConditionalGeneration(config)


@torch.no_grad()
def init_projector(model: SiQVLForConditionalGeneration) -> None:
    """Sets the LayerNorm's gain to the RMS of the text embeddings the model actually has.

    Everything else about the projector's start, and why, is in
    `SiQVLPreTrainedModel._init_weights`.
    """
    embeddings = model.model.language_model.embed_tokens.weight
    root_mean_square = embeddings.float().pow(2).mean().sqrt().item()
    model.model.multi_modal_projector.norm.weight.fill_(root_mean_square)


class _Part(NamedTuple):
    """A published part: hub id or folder, which revision of it, and whether its code may run."""

    source: str | Path
    revision: str | None
    trust_remote_code: bool
    local_files_only: bool = False

    def read(self, reader: Any, **options: Any) -> Any:
        """What one of transformers' Auto classes reads of it: config, tokenizer, processor."""
        if self.revision is not None:
            options["revision"] = self.revision
        if self.local_files_only:
            options["local_files_only"] = True
        try:
            return reader.from_pretrained(
                self.source, trust_remote_code=self.trust_remote_code, **options
            )
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.source}: a JSON file of it is damaged ({error}).") from error

    def lacks(self, *names: str) -> bool:
        """Whether it is a folder without any of these files."""
        folder = Path(self.source)
        return folder.is_dir() and not any((folder / name).is_file() for name in names)


def _read_parts(
    vision: _Part,
    language: _Part,
    pixel_shuffle_factor: int | None,
    max_image_tokens: int,
    system_prompt: str | None,
    thinking: bool | None,
) -> tuple[SiQVLConfig, SiQVLProcessor]:
    """The config and the processor of a model made of two parts."""
    vision_config, image_processor = _read_vision(vision)
    text_config, tokenizer = _read_language(language)
    config = SiQVLConfig(
        vision_config=vision_config,
        text_config=text_config,
        pixel_shuffle_factor=pixel_shuffle_factor,
        max_image_tokens=max_image_tokens,
        image_token_id=tokenizer.get_vocab()[IMAGE_TOKEN],
    )
    decoder = decoder_of(text_config)
    begins = thinking_of(tokenizer, decoder, thinking, language.source)
    template = chat_template(system_prompt, decoder=decoder, thinking=begins)
    return config, SiQVLProcessor(image_processor, tokenizer, config.tokens_per_image, template)


def _join(
    config: SiQVLConfig, vision: _Part | None, language: _Part, **options: Any
) -> SiQVLForConditionalGeneration:
    """Reads tower and decoder and joins them by a new projector; no weight is held twice.

    Args:
        vision: None for a tower with random weights.
        options: `dtype` and `attn_implementation` of both.
    """
    if vision is None:
        tower = SiglipVisionModel._from_config(config.vision_config, **options)
    else:
        revision = vision.revision or "main"
        tower = _load_weights(
            _VisionHalf, vision.source, config=config.vision_config, revision=revision, **options
        )
        tower.__class__ = SiglipVisionModel  # the subclass matters only while loading
    revision = language.revision or "main"
    causal_lm = decoder_of(config.text_config).causal_lm(config.text_config)
    decoder = _load_weights(
        causal_lm, language.source, config=config.text_config, revision=revision, **options
    )
    if (
        config.tie_word_embeddings
        and decoder.lm_head.weight is not decoder.model.embed_tokens.weight
    ):
        raise ValueError(
            f"{language.source}: its config.json says that the head is the embeddings "
            "(tie_word_embeddings), and its weights hold a head that differs; correct one of them."
        )
    config.vision_config, config.text_config = tower.config, decoder.config
    _forget_folders(config)
    with torch.device("meta"):
        model = SiQVLForConditionalGeneration._from_config(config, **options)
    model.model.vision_tower = tower
    model.model.language_model = decoder.model
    model.lm_head = decoder.lm_head
    model.model.multi_modal_projector = SiQVLProjector(config).to(options["dtype"])
    model.model.multi_modal_projector.apply(model._init_weights)
    return model


def _forget_folders(config: SiQVLConfig) -> None:
    """A local path means nothing elsewhere, and equal models shall save equal files."""
    for part in (config.vision_config, config.text_config):
        if Path(part.name_or_path).is_dir():
            part.name_or_path = ""


class _VisionHalf(SiglipVisionModel):
    """Reads the vision half of a full SigLIP without reporting each weight of the other half."""

    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"^text_model\.",
        r"^(vision_model\.)?head\.",
        r"^logit_(scale|bias)$",
    ]


def _load_weights(cls: Any, source: str | Path, **options: Any) -> Any:
    """`from_pretrained` from safetensors only.

    Raises:
        ValueError: weights are missing; transformers would fill them at random and only log it. Or
            they hold NaN or infinite values.
    """
    try:
        model, report = cls.from_pretrained(
            source, use_safetensors=True, output_loading_info=True, **options
        )
    except SafetensorError as error:
        raise ValueError(f"{source}: its weights are damaged ({error}); copy them again.") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} of the model's weights, first: {missing[0]}."
        )
    # a checkpoint of ours is looked at in its files: the model's own weights are mapped into memory
    # as a whole, and what is looked at there stays
    as_stored = cls is SiQVLForConditionalGeneration and model.dtype == torch.float32
    if name := non_finite(one_by_one(Path(source)) if as_stored else model.state_dict()):
        raise ValueError(f"{source}: weight {name} holds NaN or infinite values.")
    return model


def _read_config(
    part: _Part, kind: str, expected: Collection[str], refused: Callable[[object, str], str]
) -> PreTrainedConfig:
    """The configuration of a part.

    Args:
        expected: model types that will do.
        refused: says of a source and its model type that it will not, and what will.

    Raises:
        ValueError: there is none, it will not do, or its weights are quantized.
    """
    source = part.source
    local = isinstance(source, Path) or source.startswith((".", "/", "~"))
    if local and not Path(source).is_dir():
        raise ValueError(f"{source} is no {kind}: there is no such folder.")
    if part.lacks("config.json"):
        raise ValueError(f"{source} is no {kind}: it has no config.json.")
    try:
        config = part.read(AutoConfig)
    except ValueError as error:
        if "model type `" not in str(error):
            raise
        # what is newer than transformers is refused in our words, with what there is instead
        unknown = str(error).split("model type `")[1].split("`")[0]
        raise ValueError(refused(source, unknown)) from error
    if config.model_type not in expected:
        raise ValueError(refused(source, config.model_type))
    if getattr(config, "quantization_config", None):
        raise ValueError(
            f"{source} holds quantized weights, which are not trained here; take the {kind} that "
            "it was made of."
        )
    return config


def _no_decoder(source: object, found: str) -> str:
    return (
        f"{source} has model_type '{found}', which is no language model that can be trained here; "
        f"supported are {supported()}."
    )


def _no_tower(source: object, found: str) -> str:
    return (
        f"{source} has model_type '{found}', which is no tower that can be used here; supported "
        "are SigLIP and SigLIP 2 of a fixed resolution ('siglip')"
        f"{_OTHER_TOWERS.get(found, '')}."
    )


def _read_language(part: _Part) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """The decoder's config and its tokenizer, which end and pad as a chat does."""
    config = _read_config(part, "language model", DECODERS, _no_decoder)
    # Left padding, because batched generation continues at the right end. It is given here, not set
    # afterwards: only what the tokenizer was made with is saved with it.
    tokenizer = part.read(AutoTokenizer, padding_side="left")
    vocabulary = tokenizer.get_vocab()
    for token in (IMAGE_TOKEN, "<|vision_start|>", "<|vision_end|>", END_OF_TURN, END_OF_TEXT):
        if token not in vocabulary:
            raise ValueError(
                f"The tokenizer of {part.source} has no token {token!r}; SiQ-VL needs Qwen's "
                "special tokens."
            )
    # Fewer is normal: Qwen2.5 has 151,665 tokens and 151,936 embedding rows.
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The tokenizer of {part.source} has {len(tokenizer)} tokens, its model only "
            f"{config.vocab_size} embeddings."
        )
    tokenizer.eos_token, tokenizer.pad_token = END_OF_TURN, END_OF_TEXT
    return config, tokenizer


def _read_vision(part: _Part) -> tuple[PreTrainedConfig, BaseImageProcessor]:
    """The tower's config and the image processor that makes pictures of its size."""
    config = _read_config(part, "vision model", TOWERS, _no_tower)
    if config.model_type == "siglip":
        config = config.vision_config
    if part.lacks("preprocessor_config.json", "processor_config.json"):
        raise ValueError(
            f"{part.source} has no preprocessor_config.json: copy it from the vision model's "
            "repository."
        )
    image_processor = part.read(AutoImageProcessor)
    size, side = getattr(image_processor, "size", None) or {}, config.image_size
    if (size.get("height"), size.get("width")) != (side, side):
        raise ValueError(
            f"{part.source}: the image processor ({type(image_processor).__name__}) makes pictures "
            f"of size {dict(size) or 'unknown'}, the tower reads {side}x{side}."
        )
    return config, image_processor


def _generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Greedy; stops at the end of a turn or text, and never draws an image placeholder."""
    ids = tokenizer.get_vocab()
    return GenerationConfig(
        eos_token_id=[ids[END_OF_TURN], ids[END_OF_TEXT]],
        pad_token_id=ids[END_OF_TEXT],
        suppress_tokens=[ids[IMAGE_TOKEN]],
    )


def _as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    resolved = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(resolved, torch.dtype) or not resolved.is_floating_point:
        raise ValueError(
            f"dtype must be a floating point torch dtype such as 'bfloat16', got {dtype!r}."
        )
    return resolved
