#!/usr/bin/env bash
# torch 2.13.0: FlopCounterMode counts `torch.addmm` and not `Tensor.addmm_`, the same product added in place.
#
# Memory-lean code adds a low-rank product to an output where it is (`out.addmm_(x, w)`), in fused LoRA layers, in optimizers
# that orthogonalise and in linear attention; `baddbmm_` is as invisible, while `mm` with `out=` is counted. The counter knows
# operators by their packet, in-place ones are packets of their own, and what it does not know is 0 without a word: MFU drops by
# what was made leaner. One would guess that an operator with a FLOP formula has it in every form.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64 (8 x 4 times 4 x 8: 512 operations; for the batched one 3 times that):
#
#   addmm 512; addmm_ 0; mm 512; mm with out 512; baddbmm 1536; baddbmm_ 0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0

cat > asked.py <<'PYTHON'
import torch
from torch.utils.flop_counter import FlopCounterMode

a, b, out = torch.randn(8, 4), torch.randn(4, 8), torch.zeros(8, 8)
many, others, outs = torch.randn(3, 8, 4), torch.randn(3, 4, 8), torch.zeros(3, 8, 8)


def counted(product):
    with FlopCounterMode(display=False) as counter:
        product()
    return counter.get_total_flops()


print("; ".join(f"{name} {counted(product)}" for name, product in (
    ("addmm", lambda: torch.addmm(out, a, b)),
    ("addmm_", lambda: out.addmm_(a, b)),
    ("mm", lambda: torch.mm(a, b)),
    ("mm with out", lambda: torch.mm(a, b, out=out)),
    ("baddbmm", lambda: torch.baddbmm(outs, many, others)),
    ("baddbmm_", lambda: outs.baddbmm_(many, others)),
)))
PYTHON
OMP_NUM_THREADS=1 venv/bin/python asked.py 2>/dev/null | tee seen.txt

diff seen.txt - <<'EXPECTED'
addmm 512; addmm_ 0; mm 512; mm with out 512; baddbmm 1536; baddbmm_ 0
EXPECTED
