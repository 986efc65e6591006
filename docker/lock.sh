#!/bin/sh
# Writes docker/gpu.lock and docker/cpu.lock: each package of the images, with its version and hashes.
#   docker/lock.sh            what pyproject.toml asks for; pins that still fit stay as they are
#   docker/lock.sh --upgrade  every package at its newest version that fits
set -eu
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3.11}" -m venv "$tools"
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9

# Wheels alone: an image that has to build one would need a compiler and unlocked build tools.
"$tools/bin/uv" pip compile pyproject.toml --quiet "$@" --generate-hashes --only-binary :all: \
  --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
  --custom-compile-command "make lock" --output-file docker/gpu.lock

# The same versions without PyTorch, whose CPU build has another index and other hashes, without
# CUDA, and without setuptools, which PyTorch needs for torch.compile alone.
awk '/^[a-z0-9]/ { keep = !/^(torch|triton|setuptools|cuda-[a-z0-9-]+|nvidia-[a-z0-9-]+)==/ }
     /^#/ || keep' docker/gpu.lock > docker/cpu.lock
