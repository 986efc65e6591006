"""Memory that `siqvl estimate` tells, beside memory that training takes, both in one run.

    python -m benchmarks.memory             # a table, some ten minutes; needs SIQVL_REAL_DATA
    python -m benchmarks.memory --only tiny # half a minute

Each setting is a stage of benchmarks/training/scenario.py, `tiny` or `50m`, trained for five steps
by `siqvl.training.stage.train_stage` in a process of its own, and estimated in another from the
same recipe and prepared rows.

Measured memory is what torch's allocator has given out and not got back, at its peak: every
allocation and release, inside kernels too, is noted by torch's own profiler from before the model
is read to the end of the last step (on a CUDA machine: the allocator's `max_memory_allocated`).
The estimate's tensors are counted in another way, on a model without content. Resident memory
(--resident) also has what libraries take on the way and what glibc keeps of released blocks: the
peak of the process without the profiler, over what it held before the model was there.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from benchmarks.training.scenario import ROOT, Scenario
from siqvl.text_table import text_table

MIB = 2**20
STEPS = 5
LORA = {"adapter": {"rank": 16, "alpha": 32.0}}


@dataclass(frozen=True)
class Setting:
    """A stage with some of its keys changed."""

    name: str
    model: str
    stage: str  # of `Scenario`
    changes: dict[str, Any] = field(default_factory=dict)

    def scenario(self, work: Path) -> Scenario:
        return Scenario.of(self.model, self.stage, work / self.model, steps=STEPS)  # type: ignore[arg-type]


def _of(model: str) -> list[Setting]:
    halves = {"accumulation": 2}
    return [
        Setting(f"{model} stage 1", model, "1"),
        Setting(f"{model} stage 2", model, "2"),
        Setting(f"{model} stage 2, LoRA", model, "2", LORA),
        Setting(f"{model} stage 2, EMA", model, "2", {"ema": 0.99}),
        Setting(f"{model} stage 2, checkpointing", model, "2", {"gradient_checkpointing": True}),
        Setting(f"{model} stage 2, cached", model, "2", {"cached_features": True}),
        Setting(f"{model} stage 2, head_chunk 64", model, "2", {"head_chunk": 64}),
        Setting(f"{model} DPO", model, "dpo"),
        Setting(f"{model} DPO, LoRA", model, "dpo", LORA),
        Setting(f"{model} DPO, sides apart", model, "dpo", {"shared_prompt": False}),
        *([Setting("tiny stage 2, two batches", model, "2", halves)] if model == "tiny" else []),
    ]


SETTINGS = [*_of("tiny"), *_of("50m")]


def recipe_of(setting: Setting, work: Path, output: Path) -> Any:
    """The recipe of a setting; batches of an accumulated step share the rows of one."""
    from benchmarks.training.ours import ours_recipe

    scenario = setting.scenario(work)
    changes = dict(setting.changes)
    if count := changes.get("accumulation"):
        changes["batch_size"] = scenario.rows_per_step // count
    return ours_recipe(scenario, changes, output)


def make_ready(setting: Setting, work: Path) -> None:
    """Parts, rows and the parent checkpoint, if they are not there."""
    from benchmarks.training.parts import make_parent, make_parts
    from benchmarks.training.rows import make_rows, make_sources

    scenario = setting.scenario(work)
    scenario.work.mkdir(parents=True, exist_ok=True)
    make_parts(scenario.model, scenario.parts)
    sources = make_sources(scenario)
    make_parent(scenario, sources)
    make_rows(scenario, sources)


def estimated(setting: Setting, work: Path) -> dict[str, float]:
    """Bytes, as `siqvl estimate --data` tells them."""
    from siqvl.estimate.recipe_estimate import estimate_recipe

    scenario = setting.scenario(work)
    recipe = recipe_of(setting, work, work / "none")
    found = estimate_recipe(recipe, data=scenario.data, stages=[scenario.recipe_stage])
    memory = found.stages[0].memory
    return {"step": memory.step, "total": memory.total}


def measured(setting: Setting, work: Path, *, profiled: bool = True) -> dict[str, float]:
    """Bytes at the peak of real training."""
    import torch

    from benchmarks.training.clock import resident_mib
    from siqvl.training import stage_process
    from siqvl.training.figures.telemetry import peak_memory
    from siqvl.training.stage import train_stage

    activities = [torch.profiler.ProfilerActivity.CPU]
    profiler = torch.profiler.profile(activities=activities, profile_memory=True)
    load, write = stage_process._load_model, stage_process.write_checkpoint
    held: dict[str, float] = {}

    def begin(*args: Any, **kwargs: Any) -> Any:
        held["before"] = resident_mib() * MIB
        if profiled:
            profiler.start()
        return load(*args, **kwargs)

    def end(*args: Any, **kwargs: Any) -> Any:
        held["peak"] = peak_memory()
        if profiled:
            profiler.stop()
        return write(*args, **kwargs)

    stage_process._load_model, stage_process.write_checkpoint = begin, end
    scenario = setting.scenario(work)
    try:
        with tempfile.TemporaryDirectory() as folder:
            train_stage(
                scenario.recipe_stage,
                recipe_of(setting, work, Path(folder)),
                data=scenario.data,
                checkpoint=scenario.parent,
                output=Path(folder) / "checkpoint",
            )
    finally:
        stage_process._load_model, stage_process.write_checkpoint = load, write
    if torch.cuda.is_available():
        return {"peak": float(torch.cuda.max_memory_allocated())}
    return {"peak": _peak_of(profiler) if profiled else held["peak"] - held["before"]}


def _peak_of(profiler: Any) -> float:
    """The most that was given out and not got back, of the allocations that were noted."""
    events = profiler.profiler.kineto_results.events()
    sizes = sorted((one.start_ns(), one.nbytes()) for one in events if one.name() == "[memory]")
    live = peak = 0
    for _, size in sizes:
        live += size
        peak = max(peak, live)
    return float(peak)


JOBS: dict[str, Callable[[Setting, Path], dict[str, float]]] = {
    "estimated": estimated,
    "measured": measured,
    "resident": lambda setting, work: measured(setting, work, profiled=False),
}


@click.command()
@click.option("--only", multiple=True, help="the setting of this name, or those that begin so")
@click.option("--resident", is_flag=True, help="resident memory too, by a third process")
@click.option("--work", type=click.Path(path_type=Path), help="kept for another time")
@click.option("--child", default=None, hidden=True)
def main(only: tuple[str, ...], resident: bool, work: Path | None, child: str | None) -> None:
    """Estimated beside measured memory."""
    if child is not None:
        job, name = child.split(":")
        assert work is not None
        click.echo(json.dumps(JOBS[job](next(s for s in SETTINGS if s.name == name), work)))
        return
    click.echo(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    heads = ["MiB", "estimated", "a step", "measured", "ratio"]
    rows = [[*heads, *(["resident", "ratio"] if resident else [])]]
    with tempfile.TemporaryDirectory() as folder:
        place = work or Path(folder)
        for setting in chosen(only):
            rows.append(_row(setting, place, resident))
            click.echo("  ".join(rows[-1]), err=True)
    click.echo("\n".join(text_table(rows, left={0})))


def chosen(only: tuple[str, ...]) -> list[Setting]:
    """Settings by their names, or by how these begin; all without any."""
    names = {setting.name for setting in SETTINGS}
    return [
        setting
        for setting in SETTINGS
        if not only
        or any(
            setting.name == one if one in names else setting.name.startswith(one) for one in only
        )
    ]


def _row(setting: Setting, work: Path, resident: bool) -> list[str]:
    make_ready(setting, work)
    told = in_child("estimated", setting, work)
    peaks = [in_child("measured", setting, work)["peak"]]
    if resident:
        given_back = {"MALLOC_MMAP_THRESHOLD_": "131072"}
        peaks.append(in_child("resident", setting, work, given_back)["peak"])
    cells = [setting.name, f"{told['total'] / MIB:,.1f}", f"{told['step'] / MIB:,.1f}"]
    for peak in peaks:
        cells += [f"{peak / MIB:,.1f}", f"{told['total'] / peak:.3f}"]
    return cells


def in_child(
    job: str, setting: Setting, work: Path, variables: dict[str, str] | None = None
) -> dict[str, float]:
    """One job in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", f"{job}:{setting.name}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(variables or {})}
    done = subprocess.run(
        [*command, "--work", str(work)],
        capture_output=True, text=True, check=False, env=environment, cwd=ROOT,
    )  # fmt: skip
    if done.returncode:
        raise click.ClickException(done.stderr[-3_000:])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
