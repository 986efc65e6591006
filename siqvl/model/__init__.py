"""The SiQ-VL model: configuration, projector, model, processor, and how they are put together.

Importing this package registers the classes with transformers' Auto classes. They are registered
twice: `register` lets `AutoModel...` find them in this process; `register_for_auto_class` copies
their source into every checkpoint, so that it also loads where siqvl is not installed, and so that
TRL can load a reference model from it.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
)

from .assemble import (
    assemble,
    build_on_meta,
    init_projector,
    load_checkpoint,
    read_processor,
)
from .chat_templates import chat_template
from .configuration import SiQVLConfig, derive_pixel_shuffle_factor
from .modeling import SiQVLForConditionalGeneration, SiQVLModel, SiQVLPreTrainedModel
from .processing import IMAGE_TOKEN, SiQVLProcessor
from .projector import SiQVLProjector, pixel_shuffle

AutoConfig.register(SiQVLConfig.model_type, SiQVLConfig, exist_ok=True)
AutoModel.register(SiQVLConfig, SiQVLModel, exist_ok=True)
AutoModelForImageTextToText.register(SiQVLConfig, SiQVLForConditionalGeneration, exist_ok=True)
AutoModelForMultimodalLM.register(SiQVLConfig, SiQVLForConditionalGeneration, exist_ok=True)
AutoProcessor.register(SiQVLConfig, SiQVLProcessor, exist_ok=True)

SiQVLConfig.register_for_auto_class()
SiQVLModel.register_for_auto_class("AutoModel")
SiQVLForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")
SiQVLProcessor.register_for_auto_class()

__all__ = [
    "IMAGE_TOKEN",
    "SiQVLConfig",
    "SiQVLForConditionalGeneration",
    "SiQVLModel",
    "SiQVLPreTrainedModel",
    "SiQVLProcessor",
    "SiQVLProjector",
    "assemble",
    "build_on_meta",
    "chat_template",
    "derive_pixel_shuffle_factor",
    "init_projector",
    "load_checkpoint",
    "pixel_shuffle",
    "read_processor",
]
