#!/usr/bin/env bash
# trl 1.16.0, transformers 5.23.0: a GRPOTrainer that resumes in a later epoch is given the first epoch's prompts again.
#
# GRPO's sampler shuffles prompts with a generator of its own, made from the seed when the trainer is, and goes on with it from
# epoch to epoch; no checkpoint holds it. Hugging Face's Trainer skips batches of the current epoch alone when it resumes. So the
# first epoch after a resume has the order of epoch 1, cut off at the place where the run stopped: some prompts are seen
# again, others not at all, while weights, optimizer and random numbers go on exactly. One would guess that a resumed run sees
# what a straight one does, as one of SFTTrainer does.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64 (eight prompts, two a step, four steps an epoch; resumed after step 6):
#
#   straight, epoch 1: q6,q3 q0,q7 q2,q1 q4,q5
#   straight, epoch 2: q4,q1 q7,q6 q3,q2 q0,q5
#   resumed after step 6: q2,q1 q4,q5
#   never seen in epoch 2 of the resumed run: q0 q3
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 trl==1.16.0

cat > asked.py <<'PYTHON'
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed
from trl import GRPOConfig, GRPOTrainer

PROMPTS = [f"q{number}" for number in range(8)]
WORDS = ["<pad>", "<eos>", "<unk>", *PROMPTS, *"abcdefgh"]
core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
core.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
)


def train(resume=None):
    """The prompts of each step."""
    set_seed(0)
    seen = []

    def reward(prompts, completions, **_):
        seen.append(",".join(dict.fromkeys(prompts)))
        return [float(len(one)) for one in completions]

    trainer = GRPOTrainer(
        model=Qwen2ForCausalLM(Qwen2Config(
            vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, eos_token_id=1, pad_token_id=0,
        )),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir="out", max_steps=8, per_device_train_batch_size=4, num_generations=2,
            max_completion_length=4, gradient_accumulation_steps=1, save_steps=6, report_to="none",
            bf16=False, use_cpu=True, gradient_checkpointing=False, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=resume)
    return seen


straight = train()
resumed = train("out/checkpoint-6")
print("straight, epoch 1:", *straight[:4])
print("straight, epoch 2:", *straight[4:])
print("resumed after step 6:", *resumed)
never = sorted(set(PROMPTS) - set(",".join(straight[4:6] + resumed).split(",")))
print("never seen in epoch 2 of the resumed run:", *never)
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python asked.py 2>/dev/null | grep -E '^(straight|resumed|never)' | tee seen.txt

diff seen.txt - <<'EXPECTED'
straight, epoch 1: q6,q3 q0,q7 q2,q1 q4,q5
straight, epoch 2: q4,q1 q7,q6 q3,q2 q0,q5
resumed after step 6: q2,q1 q4,q5
never seen in epoch 2 of the resumed run: q0 q3
EXPECTED
