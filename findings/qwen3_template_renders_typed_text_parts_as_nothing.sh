#!/usr/bin/env bash
# trl 1.16.0, transformers 5.23.0: Qwen3's chat template renders a message of typed parts as an empty one.
#
# `{"type": "text", "text": …}` in a list is how data with pictures, OpenAI's clients and processors write a message.
# Qwen2.5's template refuses a list, and those of models that see read it. Qwen3's (TRL carries it, letter for letter, to recognise it)
# takes `content` only where it is a string, and the empty string otherwise: question and answer are gone, the turns are
# there, nothing is raised. Such rows train a Qwen3 on nothing but `<|im_end|>`. Join the parts first, or take a template
# that reads them.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64:
#
#   qwen3: text '<|im_start|>user\nwhat is it?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\na triangle<|im_end|>\n'
#   qwen3: parts '<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n'
#   qwen2_5: text names the answer: True
#   qwen2_5: parts TypeError
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 trl==1.16.0

cat > asked.py <<'PYTHON'
from pathlib import Path

import trl
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

FOLDER = Path(trl.__file__).parent / "chat_templates"
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
text = [
    {"role": "user", "content": "what is it?"},
    {"role": "assistant", "content": "a triangle"},
]
parts = [one | {"content": [{"type": "text", "text": one["content"]}]} for one in text]


def rendered(messages):
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:
        return error


tokenizer.chat_template = (FOLDER / "qwen3.jinja").read_text()
print("qwen3: text", repr(rendered(text)))
print("qwen3: parts", repr(rendered(parts)))
tokenizer.chat_template = (FOLDER / "qwen2_5.jinja").read_text()
print("qwen2_5: text names the answer:", "a triangle" in rendered(text))
print("qwen2_5: parts", type(rendered(parts)).__name__)
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python asked.py 2>/dev/null | tee seen.txt

diff seen.txt - <<'EXPECTED'
qwen3: text '<|im_start|>user\nwhat is it?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\na triangle<|im_end|>\n'
qwen3: parts '<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n'
qwen2_5: text names the answer: True
qwen2_5: parts TypeError
EXPECTED
