"""What an MLflow server that goes away costs: a pipeline with an outage beside one without.

python -m benchmarks.outage [--repeats 3] [--steps 150]

The outage is a real one, see `tests/integration/outage_drill.py`: the server is killed in stage 2,
and comes back in stage 3, or never. All sides run in turns. Compared is what stages 2 and 3
themselves take, by their own clocks, and the whole pipeline, which waits at the ends of tasks for
as long as the recipe's `tracking.patience_seconds`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from datetime import date
from pathlib import Path

from siqvl.recipe import Recipe, Stage
from siqvl.text_table import text_table
from tests.integration.outage_drill import Drill, Ran, run
from tests.loopback.tracking import MlflowServer
from tests.small_recipe import small_recipe

PATIENCE = 5.0
DRILLS = {
    "undisturbed": Drill(),
    "killed in stage 2, back in stage 3": Drill(Stage.VQA_SFT, Stage.COT_SFT),
    "killed in stage 2, never back": Drill(Stage.VQA_SFT),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    ran: dict[str, list[Ran]] = {name: [] for name in DRILLS}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recipe = _recipe(folder, options.steps)
        server = MlflowServer(folder / "server")
        try:
            for repeat in range(options.repeats):
                for number, (name, drill) in enumerate(DRILLS.items()):
                    server.kill()
                    server.start()
                    place = folder / f"{repeat}-{number}"
                    ran[name].append(run(recipe, place, server, drill))
        finally:
            server.kill()
        _print(ran, options.steps)


def _recipe(folder: Path, steps: int) -> Recipe:
    tracking = {"experiment": "outage", "patience_seconds": PATIENCE}
    content = small_recipe(folder, tracking=tracking).model_dump(mode="json")
    for stage in content["stages"].values():
        stage |= {"max_steps": steps, "saving_steps": max(1, steps // 10)}
    return Recipe.model_validate(content)


def _print(ran: dict[str, list[Ran]], steps: int) -> None:
    base = ran["undisturbed"]
    rows = [("pipeline", "stages 2 and 3", "ratio", "whole", "ratio", "exit")]
    for name, runs in ran.items():
        training, whole = _median(runs, "training"), _median(runs, "whole")
        ratios = (training / _median(base, "training"), whole / _median(base, "whole"))
        codes = ",".join(sorted({str(one.code) for one in runs}))
        rows.append(
            (
                name,
                f"{training:.1f} s",
                f"{ratios[0]:.3f}",
                f"{whole:.1f} s",
                f"{ratios[1]:.3f}",
                codes,
            )
        )
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"{steps} steps a stage, medians of {len(base)}, patience {PATIENCE:g} s")
    print("\n".join(text_table(rows, left=(0,))))


def _median(runs: list[Ran], what: str) -> float:
    stages = (Stage.VQA_SFT, Stage.COT_SFT)
    return statistics.median(
        one.seconds if what == "whole" else one.training_seconds(stages) for one in runs
    )


if __name__ == "__main__":
    main()
