#!/usr/bin/env bash
# flytekit 1.16.31, narwhals 2.29.0: after `import flytekit` pandas and pyarrow stand in `sys.modules`, without being loaded.
#
# flytekit imports them lazily: what it puts into `sys.modules` is a module that loads at the first attribute that is
# asked for. Libraries that want to be light ask `sys.modules` in turn whether anyone uses pandas, as an object can be a
# DataFrame only if somebody imported it: narwhals does, on which Altair and Plotly stand. There the
# answer is yes, the question itself then loads the whole of pandas, and both lazinesses add up to an import in each process.
# One would guess that what stands in `sys.modules` was imported, and that asking whether a list is a DataFrame imports
# nothing. `"pandas.core" in sys.modules` tells.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64, pandas 3.1.1, pyarrow 25.0.1 (loaded: it has submodules):
#
#   nothing else imported: pandas in sys.modules False, loaded False
#   a list is a DataFrame: False; pandas loaded False
#   flytekit imported: pandas in sys.modules True, pyarrow in sys.modules True, loaded False
#   a list is a DataFrame: False; pandas loaded True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check flytekit==1.16.31 narwhals==2.29.0 pandas==3.1.1 pyarrow==25.0.1

cat > asked.py <<'PYTHON'
import sys

from narwhals.dependencies import is_pandas_dataframe


def there(name):
    return f"{name} in sys.modules {name in sys.modules}"


def loaded():
    return f"loaded {any(name.startswith('pandas.') for name in sys.modules)}"


if sys.argv[1:] == ["flytekit"]:
    import flytekit

    print(f"flytekit imported: {there('pandas')}, {there('pyarrow')}, {loaded()}")
else:
    print(f"nothing else imported: {there('pandas')}, {loaded()}")
print(f"a list is a DataFrame: {is_pandas_dataframe([1])}; pandas {loaded()}")
PYTHON
export HOME="$folder"
{ venv/bin/python asked.py && venv/bin/python asked.py flytekit; } 2>said | tee seen.txt || { cat said; exit 1; }

diff seen.txt - <<'EXPECTED'
nothing else imported: pandas in sys.modules False, loaded False
a list is a DataFrame: False; pandas loaded False
flytekit imported: pandas in sys.modules True, pyarrow in sys.modules True, loaded False
a list is a DataFrame: False; pandas loaded True
EXPECTED
