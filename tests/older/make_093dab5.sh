#!/usr/bin/env bash
# Make tests/older/093dab5 anew: tests/older/make_093dab5.sh WORKTREE
#
# WORKTREE is a checkout of commit 093dab5 with its environment in .venv (`make setup` makes it).
# Its code runs in a temporary folder, so that nothing that is made knows where it was made.
set -euo pipefail

worktree=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/made" "$here/093dab5"
cd "$work/made"
env PYTHONPATH="$worktree" SIQVL_GIT_SHA=093dab5 OMP_NUM_THREADS=1 \
  PYTHONDONTWRITEBYTECODE=1 TZ=UTC \
  HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MLFLOW_DISABLE_TELEMETRY=true \
  LOGNAME=siqvl USER=siqvl "$worktree/.venv/bin/python" "$here/make_093dab5.py"

mv expected.json "$here/093dab5/"
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u+rw,go=r,a+X \
  --exclude=__pycache__ -c . | xz -9e > "$here/093dab5/made.tar.xz"
ls -l "$here/093dab5"
