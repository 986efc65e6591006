"""Runs of several variants in turns, and the table of their medians."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import click

from benchmarks.training.rows import sizes_of
from benchmarks.training.scenario import ROOT, Scenario
from siqvl.text_table import text_table


@dataclass(frozen=True)
class Variant:
    """One line of the table.

    Attributes:
        side: ours, peer or nanovlm.
        settings: keys of our recipe's stage, or of `peer.DEFAULTS`; nanoVLM's `path`.
        environment: variables of the process.
        checkout: whose `benchmarks` and `siqvl` run.
    """

    name: str
    side: str
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    checkout: Path = ROOT

    def job(self, scenario: Scenario, *, losses: bool, profile: bool) -> dict[str, Any]:
        return {
            "scenario": self.of_checkout(scenario).to_json(),
            "side": self.side,
            "settings": self.settings,
            "losses": losses,
            "profile": profile,
        }

    def of_checkout(self, scenario: Scenario) -> Scenario:
        """The scenario in a folder of its own, since another build prepares rows for itself."""
        if self.checkout == ROOT:
            return scenario
        return replace(scenario, work=scenario.work / "against")

    def prepare(self, scenario: Scenario) -> None:
        """Have the other build make models and rows."""
        place = self.of_checkout(scenario)
        if place == scenario:
            return
        place.work.mkdir(exist_ok=True)
        told = "import json, sys; from benchmarks.training.scenario import Scenario as S; "
        told += "from benchmarks.training.__main__ import prepared; "
        told += "prepared(S.from_json(json.loads(sys.argv[1])))"
        self.call(["-c", told, json.dumps(place.to_json())], sys.stderr)

    def call(self, arguments: list[str], stream: TextIO) -> bool:
        """Run Python in the checkout, with all its output to `stream`; whether it succeeded."""
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": str(self.checkout),
            **self.environment,
        }
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.checkout, env=environment, stdout=stream, stderr=stream, check=False
        )
        return done.returncode == 0


Figures = dict[str, Any]


def run(
    scenario: Scenario, variant: Variant, *, losses: bool = False, profile: bool = False
) -> Figures:
    """Train once in a new process; what `Clock.figures` gives.

    Raises:
        ClickException: the process failed; with the end of what it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        job, result, log = (Path(folder) / name for name in ("job", "result", "log"))
        job.write_text(json.dumps(variant.job(scenario, losses=losses, profile=profile)))
        command = ["-m", "benchmarks.training.child", str(job), str(result)]
        with open(log, "w", encoding="utf-8") as stream:
            done = variant.call(command, stream)
        if not done:
            raise click.ClickException(f"{variant.name} failed:\n{log.read_text()[-3_000:]}")
        return json.loads(result.read_text())


def in_turns(
    scenario: Scenario, variants: Sequence[Variant], repeats: int
) -> dict[str, list[Figures]]:
    """Each variant `repeats` times, one after the other, so that a busy machine hurts all alike."""
    found: dict[str, list[Figures]] = {variant.name: [] for variant in variants}
    for variant in variants:
        variant.prepare(scenario)
    for repeat in range(repeats):
        for variant in variants:
            click.echo(f"  {repeat + 1}/{repeats} {variant.name}", err=True)
            found[variant.name].append(run(scenario, variant))
    return found


def median(runs: Sequence[Figures], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def span(runs: Sequence[Figures], name: str) -> str:
    """Median (least to most)."""
    values = sorted(run[name] for run in runs)
    return f"{statistics.median(values):,.1f} ({values[0]:,.1f}–{values[-1]:,.1f})"


HEAD = (
    *("", "samples/s", "ratio", "tokens/s", "once, s", "1 epoch", "3 epochs"),
    *("peak MiB", "training MiB", "ratio", "GFLOP/s", "rows a step"),
)


def comparison(scenario: Scenario, found: dict[str, list[Figures]], base: str) -> list[str]:
    """Lines of the table; ratios are to the variant named `base`, in the same turns.

    `once` is what is done for all rows before the first step: the tower's features, the reference's
    log-probabilities. The ratios `1 epoch` and `3 epochs` have it in, over so many passes over the
    rows. `training` memory is the peak without what was there before the model: libraries and rows.
    """
    gpu = found[base][0]["gpu_mib"] is not None
    memory = "gpu_mib" if gpu else "training_mib"
    tokens = sizes_of(scenario)["apart"]["tokens"]
    on_gpu = {"training MiB": "GPU MiB", "GFLOP/s": "MFU"}
    rows: list[tuple[str, ...]] = [tuple(on_gpu.get(name, name) if gpu else name for name in HEAD)]
    for name, runs in found.items():
        rate = median(runs, "samples_per_second")
        turns = zip(runs, found[base], strict=True)
        ratio = statistics.median(
            a["samples_per_second"] / b["samples_per_second"] for a, b in turns
        )
        smaller = median(runs, memory) / median(found[base], memory)
        epochs = [
            with_one_off(scenario, runs, count) / with_one_off(scenario, found[base], count)
            for count in (1, 3)
        ]
        rows.append(
            (
                name,
                span(runs, "samples_per_second"),
                f"{ratio:.2f}x",
                f"{rate * tokens:,.0f}",
                f"{median(runs, 'one_off_seconds'):.1f}",
                *(f"{value:.2f}x" for value in epochs),
                f"{median(runs, 'peak_mib'):,.0f}",
                f"{median(runs, memory):,.0f}",
                f"{smaller:.2f}x",
                utilisation(runs),
                f"{median(runs, 'rows_per_step'):.1f}",
            )
        )
    return text_table(rows, left={0})


def utilisation(runs: Sequence[Figures]) -> str:
    """Of a GPU whose peak is known the share that the model's operations take, else their rate."""
    flops, peak = median(runs, "flops"), runs[0]["peak_flops"]
    return f"{flops / 1e9:,.0f}" if peak is None else f"{flops / peak:.1%}"


def with_one_off(scenario: Scenario, runs: Sequence[Figures], epochs: int) -> float:
    """Samples a second of so many passes over the rows, with what is done once before them."""
    total = epochs * scenario.rows
    rates = [total / (run["one_off_seconds"] + total / run["samples_per_second"]) for run in runs]
    return statistics.median(rates)
