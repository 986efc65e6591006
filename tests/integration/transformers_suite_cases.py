"""SiQ-VL's classes in transformers' own common suites: what `transformers_suites.py` runs.

That script copies this file out of this repository and runs it in a checkout of transformers, whose
tests are the package `tests` there: nothing of our own package of that name can be imported here,
but for `tiny_siqvl.py`, which is read by its path.
"""

from __future__ import annotations

import importlib.util
import json
import os
import unittest
from pathlib import Path
from typing import Any

OURS = Path(os.environ["SIQVL_MODEL_TESTS"])
MADE = Path(os.environ["TRANSFORMERS_TINY_MODEL_PATH"])

_spec = importlib.util.spec_from_file_location("tiny_siqvl", OURS / "tiny_siqvl.py")
assert _spec is not None
assert _spec.loader is not None
tiny: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

import torch  # noqa: E402
from transformers import PreTrainedTokenizerFast, SiglipImageProcessor  # noqa: E402
from transformers.models.auto.modeling_auto import (  # noqa: E402
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES  # noqa: E402
from transformers.utils import is_torchvision_available  # noqa: E402

from siqvl.model import (  # noqa: E402
    SiQVLConfig,
    SiQVLForConditionalGeneration,
    SiQVLModel,
    SiQVLProcessor,
    chat_template,
)

# What the suites know models by, as entries of transformers' own lists.
MODEL_MAPPING_NAMES["siqvl"] = "SiQVLModel"
MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES["siqvl"] = "SiQVLForConditionalGeneration"
PROCESSOR_MAPPING_NAMES["siqvl"] = "SiQVLProcessor"


def made_processor() -> SiQVLProcessor:
    # The pipelines' suite begins its prompts with the tokenizer's `image_token`.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny.make_tokenizer().backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image_pad|>"},
    )
    return SiQVLProcessor(
        SiglipImageProcessor(size={"height": 16, "width": 16}),
        tokenizer,
        num_image_tokens=4,
        chat_template=chat_template(),
    )


def make_tiny_model() -> None:
    """The model that pipelines load, where transformers' suites look for those of the hub."""
    (MADE / "reports").mkdir(parents=True, exist_ok=True)
    entry = {
        "tokenizer_classes": ["PreTrainedTokenizerFast"],
        "processor_classes": ["SiglipImageProcessor"],
        "model_classes": ["SiQVLForConditionalGeneration"],
    }
    summary = {"SiQVLForConditionalGeneration": entry}
    (MADE / "reports" / "tiny_model_summary.json").write_text(json.dumps(summary))
    folder = MADE / "siqvl" / "SiQVLForConditionalGeneration"
    processor = made_processor()
    torch.manual_seed(0)
    config = tiny.tiny_config(image_token_id=processor.image_token_id)
    SiQVLForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)


make_tiny_model()

import tests.test_pipeline_mixin as pipeline_mixin  # noqa: E402
import tests.test_processing_common as processing_common  # noqa: E402
from tests.generation.test_utils import GenerationTesterMixin  # noqa: E402
from tests.test_configuration_common import ConfigTester  # noqa: E402
from tests.test_modeling_common import (  # noqa: E402
    ModelTesterMixin,
    floats_tensor,
    ids_tensor,
    torch_device,
)

pipeline_mixin.transformers_module.SiQVLProcessor = SiQVLProcessor
# Pictures of the hub otherwise; this one is in the checkout, which is the working directory.
PICTURE = str(Path("tests/fixtures/tests_samples/COCO/000000039769.png").resolve())
processing_common.MODALITY_INPUT_DATA["images"] = [PICTURE] * 2
processing_common.url_to_local_path = lambda url: PICTURE


class Tester:
    """Rows of four image tokens and seven of text, as the suites ask for them."""

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent
        self.batch_size, self.seq_length, self.num_image_tokens = 3, 11, 4
        self.encoder_seq_length = self.seq_length
        config = self.get_config()
        text = config.text_config
        self.vocab_size, self.hidden_size = text.vocab_size, text.hidden_size
        self.num_hidden_layers = text.num_hidden_layers
        self.num_attention_heads = text.num_attention_heads
        self.image_size = config.vision_config.image_size
        self.patch_size = config.vision_config.patch_size
        self.num_channels = config.vision_config.num_channels
        self.is_training = True

    def get_config(self) -> SiQVLConfig:
        return tiny.tiny_config(
            text={"vocab_size": 99, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3},
            image_token_id=4,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[SiQVLConfig, dict[str, Any]]:
        config = self.get_config()
        shape = [self.batch_size, self.num_channels, self.image_size, self.image_size]
        ids = ids_tensor([self.batch_size, self.seq_length], config.text_config.vocab_size - 5) + 5
        ids[:, : self.num_image_tokens] = config.image_token_id
        mask = torch.ones(ids.shape, dtype=torch.long).to(torch_device)
        inputs = {"pixel_values": floats_tensor(shape), "input_ids": ids, "attention_mask": mask}
        return config, inputs


class SiQVLModelTest(
    ModelTesterMixin, GenerationTesterMixin, pipeline_mixin.PipelineTesterMixin, unittest.TestCase
):
    all_model_classes = (SiQVLModel, SiQVLForConditionalGeneration)
    pipeline_model_mapping = {  # noqa: RUF012
        "image-text-to-text": SiQVLForConditionalGeneration,
        # transformers asks for torchvision, whether or not a processor uses it
        **({"any-to-any": SiQVLForConditionalGeneration} if is_torchvision_available() else {}),
    }
    _is_composite = True

    def setUp(self) -> None:
        self.model_tester = Tester(self)
        self.config_tester = ConfigTester(self, config_class=SiQVLConfig, has_text_modality=False)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class SiQVLProcessorTest(processing_common.ProcessorTesterMixin, unittest.TestCase):
    processor_class = SiQVLProcessor

    @classmethod
    def _setup_image_processor(cls) -> Any:
        return made_processor().image_processor

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        return made_processor().tokenizer

    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        return {"num_image_tokens": 4, "chat_template": chat_template()}
