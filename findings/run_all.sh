#!/usr/bin/env bash
# Runs every finding in a process of its own, sums up, and fails when one of them does.
# `findings/run_all.sh datasets` runs those with that word in their name.
set -u

folder=$(cd "$(dirname "$0")" && pwd)
held=0
changed=()
for script in "$folder"/*"${1:-}"*.sh; do
  name=$(basename "$script" .sh)
  if [ "$name" = run_all ] || [ ! -f "$script" ]; then continue; fi
  echo "== $name"
  if bash "$script"; then held=$((held + 1)); else changed+=("$name"); fi
done

echo "$held passed, ${#changed[@]} failed"
for name in ${changed[@]+"${changed[@]}"}; do echo "  no longer so, or not run: $name"; done
[ "$held" -gt 0 ] && [ "${#changed[@]}" -eq 0 ]
