#!/usr/bin/env bash
# peft 0.21.2, torch 2.13.0: the same LoraConfig makes float32 adapters by one function and bfloat16 ones by the other.
#
# `get_peft_model` raises the adapters of a bfloat16 model to float32 (`autocast_adapter_dtype`), as an optimizer needs them:
# a step of 1e-4 on a weight of 0.02 is below what bfloat16 can add. `inject_adapter_in_model`, which PEFT's page names for
# models that shall keep their class, leaves them in bfloat16 and has no such argument. One would guess that both make the same
# adapters. Learning goes on, the loss falls more slowly, nothing is said. Raise what learns to float32 after the call.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64 (AdamW, rate 1e-4, ten steps with a gradient of ones on A):
#
#   get_peft_model: torch.float32; weights of A that moved: 1.00
#   inject_adapter_in_model: torch.bfloat16; weights of A that moved: 0.24
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 peft==0.21.2

cat > asked.py <<'PYTHON'
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 64, dtype=torch.bfloat16)


def moved(made):
    torch.manual_seed(0)
    weight = made().layer.lora_A["default"].weight
    before = weight.detach().clone()
    optimizer = torch.optim.AdamW([weight], lr=1e-4, weight_decay=0.0)
    for _ in range(10):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return weight.dtype, (weight != before).float().mean().item()


CONFIG = dict(r=8, target_modules=["layer"])
for name, made in (
    ("get_peft_model", lambda: get_peft_model(Model(), LoraConfig(**CONFIG)).base_model.model),
    ("inject_adapter_in_model", lambda: inject_adapter_in_model(LoraConfig(**CONFIG), Model())),
):
    dtype, share = moved(made)
    print(f"{name}: {dtype}; weights of A that moved: {share:.2f}")
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python asked.py 2>/dev/null | tee seen.txt

diff seen.txt - <<'EXPECTED'
get_peft_model: torch.float32; weights of A that moved: 1.00
inject_adapter_in_model: torch.bfloat16; weights of A that moved: 0.24
EXPECTED
