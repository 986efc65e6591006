"""Training beside TRL: speed, memory and losses.

    python -m benchmarks.training --model tiny --stage 2              # samples/s, memory, ratios
    python -m benchmarks.training --model 50m --stage dpo --repeats 5
    python -m benchmarks.training --model 50m --parity                # losses, step by step
    python -m benchmarks.training --model tiny --stage 2 --profile    # operators of one step
    python -m benchmarks.training --model tiny --stage 2 --search     # the peer's best settings
    python -m benchmarks.training --model full --stage 2              # on one GPU
    python -m benchmarks.training --model 50m --adapter               # LoRA: stages 2 and dpo
    python -m benchmarks.training --model 50m --stage 2 --peer-path FOLDER   # a checkout of nanoVLM
    python -m benchmarks.training --model 50m --against FOLDER               # another build of ours

Both sides train the same model on the same rows with the same effective batch, precision and
optimizer, in turns, each run in a process of its own. All models but `tiny` need SIQVL_REAL_DATA.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import click

from benchmarks.training.compare import Variant, comparison, in_turns, run
from benchmarks.training.parity import losses, parity_table
from benchmarks.training.parts import make_parent, make_parts
from benchmarks.training.rows import make_rows, make_sources
from benchmarks.training.scenario import SIZES, STAGE_NAMES, Scenario
from benchmarks.training.variants import TRL, beside, candidates, variants
from siqvl.version import code_version

#: Steps of `--parity`, and rows in each.
PARITY_STEPS = 20
PARITY_ROWS = {"tiny": 16, "50m": 4, "0.5b": 2, "full": 8}


FOLDER = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)


@click.command(help=__doc__)
@click.option("--model", type=click.Choice(list(SIZES)), default="tiny", show_default=True)
@click.option("--stage", type=click.Choice([*STAGE_NAMES, "all"]), default="all", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="default: fp32, full bf16")
@click.option("--adapter", is_flag=True, help="the language model by LoRA, in stages 2 and dpo")
@click.option("--repeats", default=3, show_default=True, help="runs of each side, in turns")
@click.option("--steps", type=click.IntRange(5), help="of a run, three of them to warm up")
@click.option("--rows-per-step", type=int, help="the effective batch")
@click.option("--work", type=click.Path(path_type=Path), help="keep models and rows there")
@click.option("--json", "record", type=click.Path(path_type=Path), help="write all figures there")
@click.option("--peer-path", "peer", type=FOLDER, help="compare with nanoVLM, in this checkout")
@click.option("--against", "build", type=FOLDER, help="compare with the build in this checkout")
@click.option("--parity", "mode", flag_value="parity", help="compare losses")
@click.option("--profile", "mode", flag_value="profile", help="operators of one step of each side")
@click.option("--search", "mode", flag_value="search", help="try settings of the peer")
@click.option("--speed", "mode", flag_value="speed", default=True, hidden=True)
def main(
    model: Any,
    stage: str,
    precision: str | None,
    adapter: bool,
    repeats: int,
    steps: int | None,
    rows_per_step: int | None,
    work: Path | None,
    record: Path | None,
    peer: Path | None,
    build: Path | None,
    mode: str,
) -> None:
    click.echo(machine())
    stages = list(STAGE_NAMES) if stage == "all" else [stage]
    if adapter:
        stages = [name for name in stages if name != "1"]
    changes: dict[str, Any] = {"precision": precision, "rows_per_step": rows_per_step}
    changes["steps"] = steps
    if mode == "parity":
        usual = {"precision": "fp32", "rows_per_step": PARITY_ROWS[model], "steps": PARITY_STEPS}
        changes = {name: changes[name] or value for name, value in usual.items()}
    changes["adapter"] = adapter
    figures: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (work or Path(temporary)).resolve() / model
        folder.mkdir(parents=True, exist_ok=True)
        scenarios = [prepared(Scenario.of(model, name, folder, **changes)) for name in stages]
        if mode == "parity":
            show_parity(scenarios, figures)
        for scenario in scenarios if mode != "parity" else []:
            click.echo(f"\n{title(scenario)}")
            if mode == "profile":
                show_profile(scenario)
            else:
                chosen, base = lines(scenario, mode, peer, build)
                found = in_turns(scenario, chosen, repeats)
                click.echo("\n".join(comparison(scenario, found, base)))
                figures[f"stage {scenario.stage}"] = {"scenario": scenario.to_json(), "runs": found}
    if record:
        record.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def lines(
    scenario: Scenario, mode: str, peer: Path | None, build: Path | None
) -> tuple[list[Variant], str]:
    """Who runs, and the name of the one that ratios are to."""
    if mode == "search":
        return candidates(scenario), "best"
    if peer is None and build is None:
        return variants(scenario), TRL
    chosen = beside(scenario, peer, build)
    return chosen, chosen[-1].name


def prepared(scenario: Scenario) -> Scenario:
    """With its parts, parent checkpoint and rows on disk."""
    make_parts(scenario.model, scenario.parts)
    sources = make_sources(scenario)
    make_parent(scenario, sources)
    make_rows(scenario, sources)
    return scenario


def show_parity(scenarios: list[Scenario], figures: dict[str, Any]) -> None:
    found = {}
    for scenario in scenarios:
        found[title(scenario)] = losses(scenario, {"cached_features": False})
        if scenario.stage == "1":
            name = f"{title(scenario)}, features cached in bf16"
            found[name] = losses(scenario, {"cached_features": True})
    figures["losses"] = found
    click.echo("\n".join(parity_table(found)))


def show_profile(scenario: Scenario) -> None:
    for variant in variants(scenario):
        click.echo(
            f"\n{variant.name}, one step\n{run(scenario, variant, profile=True)['operators']}"
        )


def title(scenario: Scenario) -> str:
    return (
        f"{scenario.model}, stage {scenario.stage}{', LoRA' if scenario.adapter else ''}, "
        f"{scenario.precision}, "
        f"{scenario.rows_per_step} rows a step, {scenario.steps} steps"
    )


def machine() -> str:
    """What the figures were measured on and with."""
    import torch

    packages = ("torch", "transformers", "trl", "accelerate")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{date.today()}, {code_version()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, {device}, Python {platform.python_version()}, "
        f"{versions}"
    )


if __name__ == "__main__":
    main()
