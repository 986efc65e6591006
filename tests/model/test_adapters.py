"""PEFT: LoRA on the language model beside a projector that learns in full."""

import pytest
import torch

from siqvl.model import SiQVLForConditionalGeneration
from tests.model.tiny_siqvl import encode, picture

peft = pytest.importorskip("peft")

LAYERS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


def adapted(model) -> torch.nn.Module:
    config = peft.LoraConfig(
        r=4,
        target_modules=LAYERS,
        modules_to_save=["multi_modal_projector"],
        init_lora_weights=False,
    )
    return peft.get_peft_model(model, config).eval()


def test_what_learns(model):
    names = [name for name, one in adapted(model).named_parameters() if one.requires_grad]
    assert names
    assert all("lora_" in name or "multi_modal_projector" in name for name in names)
    assert not any("vision_tower" in name for name in names)


def test_an_adapter_is_saved_loaded_and_merged(checkpoint, processor, tmp_path):
    inputs = encode(processor, "what?", [picture(0)])
    model = SiQVLForConditionalGeneration.from_pretrained(checkpoint).eval()
    plain = model(**inputs).logits
    tuned = adapted(model)
    with torch.no_grad():
        for name, one in tuned.named_parameters():
            if "modules_to_save" in name:
                one.mul_(1.5)
    expected = tuned(**inputs).logits
    assert (expected - plain).abs().max() > 1e-2
    tuned.save_pretrained(tmp_path)
    base = SiQVLForConditionalGeneration.from_pretrained(checkpoint).eval()
    again = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    torch.testing.assert_close(again(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    merged = again.merge_and_unload()
    assert type(merged) is SiQVLForConditionalGeneration
    torch.testing.assert_close(merged(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
