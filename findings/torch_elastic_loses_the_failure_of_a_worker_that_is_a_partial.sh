#!/usr/bin/env bash
# torch 2.13.0: elastic's `start_processes` runs a `functools.partial`, until it fails: then its failure is lost.
#
# Both entrances take a `Callable`. `start_processes` runs a partial and hands its value back. When a worker fails, it asks
# the callable for its `__qualname__` for a line of its log, which a partial has not: `wait()` raises AttributeError, and
# the failure with its rank, exit code and message (`RunProcsResult.failures`), which whoever supervises and restarts goes
# by, is never returned. `elastic_launch` above it asks for `__name__`, and refuses every partial before it starts one.
# One would guess that what is fit to run is fit to fail, and binding the arguments of a training loop is what partials are
# for. What is left is `functools.update_wrapper(partial, function)`, or arguments given apart.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64; the function raises ValueError for a rate below 0:
#
#   function, 1.0: returned 1.0
#   function, -1.0: worker 0 failed, ValueError: the learning rate is negative
#   partial, 1.0: returned 1.0
#   partial, -1.0: raised AttributeError: 'functools.partial' object has no attribute '__qualname__'
#   partial with a name, -1.0: worker 0 failed, ValueError: the learning rate is negative
#   elastic_launch, partial, 1.0: raised AttributeError: 'functools.partial' object has no attribute '__name__'
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0

cat > workers.py <<'PYTHON'
import logging
import tempfile
from functools import partial, update_wrapper

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

logging.disable(logging.CRITICAL)


def train(rate):
    if rate < 0:
        raise ValueError("the learning rate is negative")
    return rate


def processes(entrypoint, *args):
    logs = DefaultLogsSpecs(tempfile.mkdtemp(dir="."))
    context = start_processes("trainer", entrypoint, {0: args}, {0: {}}, logs, start_method="spawn")
    try:
        result = context.wait()
    finally:
        context.close()
    if result.is_failed():
        (failure,) = result.failures.values()
        return f"worker {failure.local_rank} failed, {failure.message['message']}"
    return f"returned {result.return_values[0]}"


def launched(entrypoint, *args):
    config = LaunchConfig(1, 1, 1, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, run_id="run",
                          logs_specs=DefaultLogsSpecs(tempfile.mkdtemp(dir=".")))
    return f"returned {elastic_launch(config, entrypoint)(*args)[0]}"


def say(what, start, *entrypoint):
    try:
        print(f"{what}: {start(*entrypoint)}", flush=True)
    except AttributeError as error:
        print(f"{what}: raised AttributeError: {error}", flush=True)


if __name__ == "__main__":
    say("function, 1.0", processes, train, 1.0)
    say("function, -1.0", processes, train, -1.0)
    say("partial, 1.0", processes, partial(train, 1.0))
    say("partial, -1.0", processes, partial(train, -1.0))
    say("partial with a name, -1.0", processes, update_wrapper(partial(train, -1.0), train))
    say("elastic_launch, partial, 1.0", launched, partial(train, 1.0))
PYTHON
OMP_NUM_THREADS=1 venv/bin/python workers.py 2>said | tee seen.txt || { cat said; exit 1; }

diff seen.txt - <<'EXPECTED'
function, 1.0: returned 1.0
function, -1.0: worker 0 failed, ValueError: the learning rate is negative
partial, 1.0: returned 1.0
partial, -1.0: raised AttributeError: 'functools.partial' object has no attribute '__qualname__'
partial with a name, -1.0: worker 0 failed, ValueError: the learning rate is negative
elastic_launch, partial, 1.0: raised AttributeError: 'functools.partial' object has no attribute '__name__'
EXPECTED
