"""What logging costs training, and how fast what was logged reaches an MLflow server.

python -m benchmarks.tracking --against CHECKOUT [--points 10000] [--repeats 3] [--step 0.05]

The other side is an older checkout of this package, in whose place this one stands otherwise. Both
sides deliver to one real server on loopback, in turns, each in a process of its own: points that
all are good, one of which the server refuses, and good ones to a stand-in that costs nothing
itself, near and 100 ms away. Then the same training loop runs with and without logging, in turns,
while a server takes what is logged.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from siqvl.text_table import text_table
from tests.loopback.poor_server import poor_server
from tests.loopback.tracking import MlflowServer

ROOT = Path(__file__).parents[1]
DISTANCE = 0.1  # seconds
PER_STEP = 10  # points that a step logs at once
CHILD = ROOT / "benchmarks" / "tracking_child.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--step", type=float, default=0.05, help="seconds of a training step")
    options = parser.parse_args()
    builds = {"old": options.against, "new": ROOT}
    rows = [("delivery of points", "old, points/s", "new, points/s", "ratio (least)")]
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {options.points} points")
    with tempfile.TemporaryDirectory() as scratch, poor_server() as far:
        server = MlflowServer(Path(scratch) / "server")
        server.start()
        try:
            for name, uri, bad in (
                ("all good, a real server", server.uri, 0),
                ("one is refused, a real server", server.uri, 1),
                ("all good, a server that costs nothing", far.uri, 0),
                ("all good, 100 ms away", far.uri, 0),
            ):
                far.trouble = _from_afar if "away" in name else _at_once
                arguments = ["deliver", uri, str(options.points), str(bad)]
                found = _in_turns(builds, arguments, options.repeats)
                old, new = ([options.points / value for value in found[side]] for side in builds)
                ratios = [after / before for before, after in zip(old, new, strict=True)]
                speeds = [f"{statistics.median(side):,.0f}" for side in (old, new)]
                ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f})"
                rows.append((name, speeds[0], speeds[1], ratio))
            print("\n".join(text_table(rows, left=(0,))))
            steps = str(options.points // PER_STEP)
            sides = {"without": ROOT, "with": ROOT}
            loop = ["train", server.uri, steps, str(options.step), str(PER_STEP)]
            found = _in_turns(sides, loop, options.repeats)
        finally:
            server.kill()
    both = zip(found["with"], found["without"], strict=True)
    said = ", ".join(f"{logs[0] / none[0] - 1:+.1%}" for logs, none in both)
    inside = statistics.median(logs[1] for logs in found["with"])
    print(
        f"{steps} steps of {options.step:g} s that log {options.points} points: {inside:.2%} of the"
    )
    print(f"time is in calls that log; the loop beside one that logs nothing: {said}")


def _at_once(path: str, body: dict[str, Any]) -> None:
    pass


def _from_afar(path: str, body: dict[str, Any]) -> None:
    time.sleep(DISTANCE)


def _in_turns(builds: dict[str, Path], arguments: list[str], repeats: int) -> dict[str, Any]:
    """Seconds of each side, by the child's own clock."""
    found: dict[str, Any] = {name: [] for name in builds}
    for _ in range(repeats):
        for name, build in builds.items():
            done = subprocess.run(
                [sys.executable, str(CHILD), name, *arguments],
                env=os.environ | {"PYTHONPATH": str(build), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                check=True,
            )
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found


if __name__ == "__main__":
    main()
