#!/usr/bin/env bash
# safetensors 0.8.0: a file of weights can be read by its owner alone, whatever the umask says.
#
# `save_file` makes its file with mode 600. Until 0.7.0 it had what the umask grants, 644 as a rule, like every other
# file that Python or transformers writes beside it. So a model that one user trains on a shared disk has a config and a
# tokenizer that a server of another user can read, and weights that it cannot; and after an update of one package, on
# the same machine. One would guess that a file follows the umask. Under umask 077 nothing differs.
#
# Seen on 2026-11-29, Python 3.11.7, Linux x86-64:
#
#   safetensors 0.7.0, umask 022: weights 644, a plain file 644
#   safetensors 0.7.0, umask 077: weights 600, a plain file 600
#   safetensors 0.8.0, umask 022: weights 600, a plain file 644
#   safetensors 0.8.0, umask 077: weights 600, a plain file 600
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv

cat > modes.py <<'PYTHON'
import os
import sys
from importlib.metadata import version

import numpy as np
from safetensors.numpy import save_file

umask = sys.argv[1]
os.umask(int(umask, 8))
name = f"{version('safetensors')}-{umask}"
save_file({"weight": np.zeros(3)}, f"{name}.safetensors")
with open(f"{name}.json", "w") as file:
    file.write("{}")
weights, plain = (f"{os.stat(name + end).st_mode & 0o777:o}" for end in (".safetensors", ".json"))
print(f"safetensors {version('safetensors')}, umask {umask}: weights {weights}, a plain file {plain}")
PYTHON
for version in 0.7.0 0.8.0; do
  venv/bin/pip install --quiet --disable-pip-version-check "safetensors==$version" numpy==2.4.2
  for umask in 022 077; do venv/bin/python modes.py "$umask"; done
done | tee seen.txt

diff seen.txt - <<'EXPECTED'
safetensors 0.7.0, umask 022: weights 644, a plain file 644
safetensors 0.7.0, umask 077: weights 600, a plain file 600
safetensors 0.8.0, umask 022: weights 600, a plain file 644
safetensors 0.8.0, umask 077: weights 600, a plain file 600
EXPECTED
