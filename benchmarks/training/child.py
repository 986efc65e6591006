"""One run, in a process of its own: `python -m benchmarks.training.child JOB RESULT`.

Its peak memory is nobody else's then, and nothing that one run left in memory helps the next.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.training.scenario import WARM_UP, Scenario


def main(job: Path, result: Path) -> None:
    """Train as a job says (`compare.Variant.job`); write what the clock saw."""
    # libraries are imported before memory is noted
    from benchmarks.training.clock import Clock
    from benchmarks.training.nanovlm import train_nanovlm
    from benchmarks.training.operations import device_peak, operations_per_row
    from benchmarks.training.ours import train_ours
    from benchmarks.training.peer import train_peer

    sides = {"ours": train_ours, "peer": train_peer, "nanovlm": train_nanovlm}

    told = json.loads(job.read_text())
    scenario = Scenario.from_json(told["scenario"])
    clock = Clock(WARM_UP, losses=told["losses"], profile=told["profile"])
    clock.start()
    train = sides[told["side"]]
    with tempfile.TemporaryDirectory(dir=scenario.work) as output:
        train(scenario, told["settings"], Path(output), clock)
    figures = clock.figures()
    needed = operations_per_row(scenario, told["side"], told["settings"], clock.config)
    figures["flops"] = figures["samples_per_second"] * needed
    figures["peak_flops"] = device_peak(scenario)
    result.write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
