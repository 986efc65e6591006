"""Run a command against a cluster that lives as long as the command does.

python -m tests.loopback --image train=registry/train:1 -- \\
    pyflyte -c {config} run --remote --wait --poll-interval 1 workflows/flow.py flow

`{config}` in the command is the cluster's config file. At the end there is a table of what ran.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from .cluster import Cluster
from .memory import Peaks
from .records import Execution, NodeRecord

HEADER = ("node", "task", "attempts", "cached", "seconds", "state")


def main() -> int:
    options = _parser().parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster is stopped
    peaks = Peaks()
    with Cluster(
        images=dict(options.image),
        limits=dict(options.limit),
        on_pod=peaks if options.memory else None,
        secrets=dict(options.secret),
        variables=dict(options.variable),
        slots=options.slots,
        folder=options.folder,
        keep=options.keep,
    ) as cluster:
        print(f"loopback cluster: {cluster.config_file}, pod logs in {cluster.logs}", flush=True)
        arguments = [part.replace("{config}", str(cluster.config_file)) for part in command]
        code = _run(arguments, cluster.environment())
        for execution in cluster.executions:
            print(f"\n{table(execution)}")
        if options.memory:
            print(f"\nthe most memory that pods had at a time:\n{peaks.table()}")
        if code:
            cluster.keep = True  # what the pods left is gone already, unless --keep
            print(f"\nthe pods' logs stay in {cluster.logs}")
    return code


def _run(arguments: list[str], environment: dict[str, str]) -> int:
    """The command's exit code. Whatever ends this process ends all that the command started."""
    process = subprocess.Popen(arguments, env=environment, start_new_session=True)
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # not reaped yet: the group is its own
        code = process.wait()
    return code if code >= 0 else 128 - code


def table(execution: Execution) -> str:
    """What ran in an execution, a line for each node."""
    rows = [HEADER, *(_row(record) for record in execution.nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    title = f"{execution.name}  {execution.state}  {execution.seconds:.1f} s"
    error = [f"error: {execution.error}"] if execution.error else []
    return "\n".join([title, *lines, *error])


def _row(record: NodeRecord) -> tuple[str, ...]:
    cached = "yes" if record.cached else ""
    if record.is_array:
        hits = sum(element.cached for element in record.elements)
        cached = f"{hits} of {len(record.elements)}" if hits else ""
    attempts = len(record.attempts) + sum(len(element.attempts) for element in record.elements)
    seconds = f"{record.seconds:.1f}"
    return record.id, record.task_name, str(attempts or ""), cached, seconds, record.state


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.loopback", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    pairs = {
        "image": "an image by its name in the config file",
        "secret": "GROUP/KEY=VALUE",
        "limit": "what the platform allows, such as memory=1Gi",
        "variable": "what every pod finds in its environment",
    }
    for name, text in pairs.items():
        parser.add_argument(
            f"--{name}", type=_pair, action="append", default=[], metavar="NAME=VALUE", help=text
        )
    parser.add_argument("--slots", type=int, default=1, help="pods at a time (default 1)")
    parser.add_argument("--memory", action="store_true", help="measure the pods' memory")
    parser.add_argument("--folder", type=Path, help="where logs and pods lie")
    parser.add_argument("--keep", action="store_true", help="leave everything behind")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …")
    return parser


if __name__ == "__main__":
    sys.exit(main())
