#!/usr/bin/env bash
# trl 1.16.0, transformers 5.23.0: rows of prompt and completion without thoughts teach a Qwen3 to write an empty thought.
#
# The two texts are the template's of the prompt, and what its text of the whole conversation has more. Qwen3's prompt for
# answers without thoughts ends in `<think>\n\n</think>\n\n`, but only if `enable_thinking` is false; its text of a whole
# conversation has that block before every last answer, whatever it is told. So by default the block lands in the completion:
# it carries loss, and stands behind the prompt that asks for thoughts. One would guess that a row without thoughts trains the
# answer alone. `chat_template_kwargs: {"enable_thinking": false}` in every row moves the block into the prompt.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64:
#
#   as it comes: behind the role '' completion '<think>\n\n</think>\n\nred<|im_end|>\n'
#   enable_thinking false in the row: behind the role '<think>\n\n</think>\n\n' completion 'red<|im_end|>\n'
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
from trl.data_utils import apply_chat_template

tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates/qwen3.jinja").read_text()
row = {
    "prompt": [{"role": "user", "content": "what color is it?"}],
    "completion": [{"role": "assistant", "content": "red"}],
}
told = row | {"chat_template_kwargs": {"enable_thinking": False}}
for name, one in (("as it comes", row), ("enable_thinking false in the row", told)):
    found = apply_chat_template(one, tokenizer)
    asked = found["prompt"].partition("assistant\n")[2]
    print(f"{name}: behind the role {asked!r} completion {found['completion']!r}")
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python asked.py 2>/dev/null | tee seen.txt

diff seen.txt - <<'EXPECTED'
as it comes: behind the role '' completion '<think>\n\n</think>\n\nred<|im_end|>\n'
enable_thinking false in the row: behind the role '<think>\n\n</think>\n\n' completion 'red<|im_end|>\n'
EXPECTED
