"""Puts a SiQ-VL together: a SigLIP checkpoint + a Qwen2/2.5 checkpoint -> (model, processor).

Weights are only ever read from safetensors; a pickle can run code when it is opened.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2ForCausalLM,
    SiglipVisionModel,
)

from .configuration import SiQVLConfig
from .modeling import SiQVLForConditionalGeneration
from .processing import IMAGE_TOKEN, SiQVLProcessor
from .projector import SiQVLProjector

END_OF_TURN = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"

_CHAT_TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")
_QWEN_SYSTEM_PROMPT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


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
    trust_remote_code: bool = False,
    vision_revision: str | None = None,
    language_revision: str | None = None,
) -> tuple[SiQVLForConditionalGeneration, SiQVLProcessor]:
    """Builds a model and its processor from two published parts.

    Args:
        vision: SigLIP or SigLIP2 (fixed resolution), a full model or its vision half: hub id or
            folder with config.json and preprocessor_config.json.
        language: Qwen2 or Qwen2.5: hub id or folder with config.json and the tokenizer's files.
        pixel_shuffle_factor: see `SiQVLConfig`; None derives it from `max_image_tokens`.
        init: "pretrained" reads both parts' weights; "config" needs no weights and draws random
            ones. The projector is new either way, see `init_projector`.
        random_tower: draw the tower's weights from its config, whatever `init` says of the language
            model: the control that shows what a trained tower is worth. torch's seed decides.
        dtype: of every weight, for example "bfloat16".
        system_prompt: the system message of conversations that bring none. None: Qwen's own; "": no
            system turn; any other text: that text. Saved in the checkpoint's chat template.
        trust_remote_code: passed on to config, tokenizer and image processor loading.
        vision_revision, language_revision: hub revisions to pin.

    Raises:
        ValueError: a part of another model family, missing files, a picture size the tower was not
            built for, or a tokenizer that does not fit the embeddings. Each names what was found.
    """
    if init not in ("pretrained", "config"):
        raise ValueError(f"init must be 'pretrained' or 'config', got {init!r}.")
    dtype = _as_dtype(dtype)
    vision_source = {"revision": vision_revision, "trust_remote_code": trust_remote_code}
    language_source = {"revision": language_revision, "trust_remote_code": trust_remote_code}

    vision_config = _read_config(
        vision, "SigLIP vision", ("siglip", "siglip_vision_model"), **vision_source
    )
    if vision_config.model_type == "siglip":
        vision_config = vision_config.vision_config
    text_config = _read_config(language, "Qwen2/Qwen2.5 language", ("qwen2",), **language_source)
    tokenizer = _read_tokenizer(language, text_config, **language_source)
    image_processor = _read_image_processor(vision, vision_config, **vision_source)

    config = SiQVLConfig(
        vision_config=vision_config,
        text_config=text_config,
        pixel_shuffle_factor=pixel_shuffle_factor,
        max_image_tokens=max_image_tokens,
        image_token_id=tokenizer.get_vocab()[IMAGE_TOKEN],
    )
    if init == "pretrained":
        options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attn_implementation}
        tower = (
            SiglipVisionModel._from_config(config.vision_config, **options)
            if random_tower
            else _pretrained_tower(config, vision, vision_revision, **options)
        )
        model = _join_pretrained(config, tower, language, language_revision, **options)
    else:
        model = SiQVLForConditionalGeneration._from_config(
            config, dtype=dtype, attn_implementation=attn_implementation
        )
    init_projector(model)
    model.generation_config = _generation_config(tokenizer)
    processor = SiQVLProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        num_image_tokens=config.tokens_per_image,
        chat_template=chat_template(system_prompt),
    )
    return model.eval(), processor


def load_checkpoint(
    path: str | Path, *, dtype: str | torch.dtype = "float32", attn_implementation: str = "sdpa"
) -> tuple[SiQVLForConditionalGeneration, SiQVLProcessor]:
    """Loads a SiQ-VL checkpoint folder: local safetensors, this package's classes.

    Raises:
        ValueError: no folder, no safetensors, another model's folder, weights missing from it, or a
            processor whose image takes another number of tokens than the model's.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} is not a SiQ-VL checkpoint: it has no config.json.")
    found = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type")
    if found != SiQVLConfig.model_type:
        raise ValueError(f"{path} holds model_type '{found}', expected '{SiQVLConfig.model_type}'.")
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
    """The model's shapes without its memory: for parameter counts, FLOPs and memory estimates."""
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


def chat_template(system_prompt: str | None = None) -> str:
    """The Jinja source of chat_template.jinja with this default system message baked in.

    None keeps Qwen's own; "" renders no system turn unless the messages bring one.
    """
    source = _CHAT_TEMPLATE_FILE.read_text(encoding="utf-8")
    if system_prompt is None:
        return source
    line = '{%- set default_system_message = "' + _QWEN_SYSTEM_PROMPT + '" %}'
    if source.count(line) != 1:
        raise ValueError(
            f"{_CHAT_TEMPLATE_FILE} must hold this line once, found {source.count(line)}: {line}"
        )
    # Jinja reads a JSON string literal as it is, as long as characters are not \u-escaped in pairs.
    literal = json.dumps(system_prompt, ensure_ascii=False)
    return source.replace(line, "{%- set default_system_message = " + literal + " %}")


def _pretrained_tower(
    config: SiQVLConfig, vision: str | Path, revision: str | None, **options: Any
) -> SiglipVisionModel:
    tower = _load_weights(
        _VisionHalf, vision, config=config.vision_config, revision=revision or "main", **options
    )
    tower.__class__ = SiglipVisionModel  # the subclass matters only while loading
    return tower


def _join_pretrained(
    config: SiQVLConfig,
    tower: SiglipVisionModel,
    language: str | Path,
    revision: str | None,
    *,
    dtype: torch.dtype,
    attn_implementation: str,
) -> SiQVLForConditionalGeneration:
    """Reads the decoder and joins it to the tower by a new projector; no weight is held twice."""
    decoder = _load_weights(
        Qwen2ForCausalLM,
        language,
        config=config.text_config,
        revision=revision or "main",
        dtype=dtype,
        attn_implementation=attn_implementation,
    )
    config.vision_config, config.text_config = tower.config, decoder.config
    for part in (config.vision_config, config.text_config):
        # A local path means nothing elsewhere, and equal models shall save equal files.
        if Path(part.name_or_path).is_dir():
            part.name_or_path = ""
    with torch.device("meta"):
        model = SiQVLForConditionalGeneration._from_config(
            config, dtype=dtype, attn_implementation=attn_implementation
        )
    model.model.vision_tower = tower
    model.model.language_model = decoder.model
    model.lm_head = decoder.lm_head
    model.model.multi_modal_projector = SiQVLProjector(config).to(dtype)
    model.model.multi_modal_projector.apply(model._init_weights)
    return model


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
        ValueError: weights are missing; transformers would fill them at random and only log it.
    """
    model, report = cls.from_pretrained(
        source, use_safetensors=True, output_loading_info=True, **options
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} of the model's weights, first: {missing[0]}."
        )
    return model


def _read_config(
    source: str | Path, part: str, expected: tuple[str, ...], **options: Any
) -> PreTrainedConfig:
    folder = Path(source)
    if not folder.is_dir() and (isinstance(source, Path) or source.startswith((".", "/", "~"))):
        raise ValueError(f"{source} is no {part} model: there is no such folder.")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"{source} is no {part} model: it has no config.json.")
    config = AutoConfig.from_pretrained(source, **_drop_none(options))
    if config.model_type not in expected:
        raise ValueError(
            f"{source} is no {part} model: found model_type '{config.model_type}', expected "
            f"{' or '.join(repr(name) for name in expected)}."
        )
    return config


def _read_tokenizer(
    source: str | Path, text_config: PreTrainedConfig, **options: Any
) -> PreTrainedTokenizerBase:
    # Left padding, because batched generation continues at the right end. It is given here, not set
    # afterwards: only what the tokenizer was made with is saved with it.
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **_drop_none(options))
    vocabulary = tokenizer.get_vocab()
    for token in (IMAGE_TOKEN, "<|vision_start|>", "<|vision_end|>", END_OF_TURN, END_OF_TEXT):
        if token not in vocabulary:
            raise ValueError(
                f"The tokenizer of {source} has no token {token!r}; SiQ-VL needs Qwen2's special "
                "tokens."
            )
    # Fewer is normal: Qwen2.5 has 151,665 tokens and 151,936 embedding rows.
    if len(tokenizer) > text_config.vocab_size:
        raise ValueError(
            f"The tokenizer of {source} has {len(tokenizer)} tokens, its model only "
            f"{text_config.vocab_size} embeddings."
        )
    tokenizer.eos_token, tokenizer.pad_token = END_OF_TURN, END_OF_TEXT
    return tokenizer


def _read_image_processor(
    source: str | Path, vision_config: PreTrainedConfig, **options: Any
) -> BaseImageProcessor:
    folder = Path(source)
    if folder.is_dir() and not any(
        (folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")
    ):
        raise ValueError(
            f"{source} has no preprocessor_config.json: copy it from the vision model's repository."
        )
    image_processor = AutoImageProcessor.from_pretrained(source, **_drop_none(options))
    size, side = image_processor.size, vision_config.image_size
    if (size.get("height"), size.get("width")) != (side, side):
        raise ValueError(
            f"{source}: the image processor makes pictures of size {dict(size)}, the tower reads "
            f"{side}x{side}."
        )
    return image_processor


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


def _drop_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
