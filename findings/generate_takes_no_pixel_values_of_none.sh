#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0: a model that sees takes `pixel_values=None` in a forward pass, not in `generate`.
#
# Text without a picture is valid for LLaVA and its like, and `forward` has `pixel_values=None` for its default. `generate`
# encodes pictures before the first token and looks whether the argument is *named*, not whether it is something: with
# `pixel_values=None` the tower is called with None, and what is raised speaks of a NoneType, not of the argument. One would
# guess that a default may be passed on, as wrappers, servers and drafts of assisted decoding do. Leave the key out instead.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64:
#
#   LLaVA: forward with None (1, 3, 100); generate without the key 5 tokens; generate with None AttributeError
#   Idefics3: forward with None (1, 3, 100); generate without the key 5 tokens; generate with None AttributeError
#   Qwen2.5-VL: forward with None (1, 3, 100); generate without the key 5 tokens; generate with None AttributeError
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0

cat > asked.py <<'PYTHON'
import torch
import transformers as t

torch.manual_seed(0)
WIDTHS = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
SIZES = dict(image_size=16, patch_size=4)
TEXT = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=100, pad_token_id=0, eos_token_id=0, bos_token_id=0,
)


def llava():
    return t.LlavaForConditionalGeneration(t.LlavaConfig(
        vision_config=t.SiglipVisionConfig(**WIDTHS, **SIZES).to_dict(),
        text_config=t.Qwen2Config(**TEXT).to_dict(), image_token_index=99,
    ))


def idefics3():
    return t.Idefics3ForConditionalGeneration(t.Idefics3Config(
        vision_config={**WIDTHS, **SIZES}, text_config=t.LlamaConfig(**TEXT).to_dict(),
        image_token_id=99, scale_factor=2,
    ))


def qwen():
    vision = dict(depth=2, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=32,
                  patch_size=4, fullatt_block_indexes=[1])
    rope = dict(rope_type="default", mrope_section=[1, 1, 2], rope_theta=10000.0)
    return t.Qwen2_5_VLForConditionalGeneration(t.Qwen2_5_VLConfig(
        vision_config=vision, text_config={**TEXT, "rope_parameters": rope}, image_token_id=99,
        video_token_id=98, vision_start_token_id=97, vision_end_token_id=96,
    ))


ids = torch.tensor([[1, 2, 3]])
text = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
for name, made in (("LLaVA", llava), ("Idefics3", idefics3), ("Qwen2.5-VL", qwen)):
    model = made().eval()
    options = dict(max_new_tokens=2, min_new_tokens=2, do_sample=False)
    with torch.no_grad():
        forward = tuple(model(**text, pixel_values=None).logits.shape)
        without = model.generate(**text, **options).shape[1]
        try:
            said = f"{model.generate(**text, pixel_values=None, **options).shape[1]} tokens"
        except Exception as error:
            said = type(error).__name__
    print(f"{name}: forward with None {forward}; generate without the key {without} tokens; "
          f"generate with None {said}")
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python asked.py 2>/dev/null | tee seen.txt

diff seen.txt - <<'EXPECTED'
LLaVA: forward with None (1, 3, 100); generate without the key 5 tokens; generate with None AttributeError
Idefics3: forward with None (1, 3, 100); generate without the key 5 tokens; generate with None AttributeError
Qwen2.5-VL: forward with None (1, 3, 100); generate without the key 5 tokens; generate with None AttributeError
EXPECTED
