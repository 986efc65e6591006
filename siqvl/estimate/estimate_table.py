"""An estimate for a terminal, in 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from siqvl.estimate.results import Amount, Estimate, StageFigures
from siqvl.text_table import text_table

GIB, MIB = 2**30, 2**20
COLUMNS = 100
SMALL = 100 * MIB  # weights of a model whose memory is shown in MiB


def estimate_lines(estimate: Estimate) -> list[str]:
    """Tables of memory, of disk and of work, and what to do where a stage does not fit."""
    return [part for line in _lines(estimate) for part in _wrapped(line)]


def _wrapped(line: str) -> list[str]:
    """A line in as many as it needs; those below the first stand further in."""
    inside = " " * (len(line) - len(line.lstrip()) + 2)
    wrap = textwrap.wrap(line, COLUMNS, subsequent_indent=inside, drop_whitespace=True)
    return wrap if len(line) > COLUMNS else [line]


def _lines(estimate: Estimate) -> list[str]:
    counts = estimate.parameters
    weights = ", ".join(f"{part} {count / 1e6:,.1f} M" for part, count in counts.items())
    return [
        f"{estimate.recipe}: {estimate.model[0]}",
        f"{'+':>{len(estimate.recipe) + 1}} {estimate.model[1]}",
        f"weights: {weights}",
        "",
        *_memory(estimate),
        "",
        *_disk(estimate),
        "",
        *_work(estimate),
        *([""] if estimate.notes else []),
        *estimate.notes,
    ]


def _memory(estimate: Estimate) -> list[str]:
    unit = GIB if 4 * sum(estimate.parameters.values()) > SMALL else MIB
    size = gib if unit == GIB else mib
    heads = (
        f"{'GiB' if unit == GIB else 'MiB'} of memory",
        "tower",
        "proj.",
        "language",
        "grads",
        "AdamW",
        "EMA",
    )
    rows: list[tuple[str, ...]] = [(*heads, "DDP/FSDP", "batch", "total", "fits")]
    for stage in estimate.stages:
        memory = stage.memory
        cells = (
            *memory.weights.values(),
            *(memory.gradients, memory.optimizer, memory.ema),
            *(memory.buckets + memory.gathered, memory.batch),
        )
        total = size(memory.total)
        if memory.total > memory.step:
            total += "*"
        name = f"{stage.stage.value}{'' if stage.memory_sure == 'known' else ' ≤'}"
        fits = {None: "?", True: "yes", False: "NO"}[stage.fits]
        rows.append((name, *(size(cell) if cell else "–" for cell in cells), total, fits))
    where = f"{estimate.device}" + (
        f", {gib(estimate.capacity)} GiB" if estimate.capacity is not None else ""
    )
    if estimate.processes > 1:
        where += f", each of {estimate.processes} processes"
    lines = [f"memory of {where}", *text_table(rows, left={0})]
    for stage in estimate.stages:
        lines += _details(stage, size)
    return lines


def _details(stage: StageFigures, size: Callable[[float], str]) -> list[str]:
    memory, name = stage.memory, stage.stage.value
    lines = [
        f"  {name}: {', '.join(stage.learns)}; {stage.precision}; batch of "
        f"{memory.rows} x {memory.width:,} tokens, {memory.images} pictures, logits "
        f"{size(memory.logits)}"
    ]
    if memory.total > memory.step:
        most = max(memory.passes, key=lambda one: memory.passes[one])
        lines.append(
            f"    * the {most} pass before training takes most; a step {size(memory.step)}"
        )
    if stage.turns:
        lines.append(f"    it does not fit; with --set of (keys of the stage: stages.{name}.…):")
        width = max(len(turn.setting) for turn in stage.turns)
        lines += [
            f"      {turn.setting:<{width}}  {size(turn.bytes):>6}  "
            f"{'fits' if turn.fits else 'does not'}"
            for turn in stage.turns
        ]
    return lines


def _disk(estimate: Estimate) -> list[str]:
    rows: list[tuple[str, ...]] = [("GB of disk", "rows", "features", "states", "checkpoint")]
    for stage in estimate.stages:
        disk = stage.disk
        parts = (disk.rows, disk.features, disk.states, disk.checkpoint)
        rows.append((stage.stage.value, *(amount(one, 1e9, 2) for one in parts)))
    total = f"{estimate.disk / 1e9:,.2f}"
    return [
        *text_table(rows, left={0}),
        f"together {total} GB where it is known, {estimate.registry / 1e9:,.2f} of it copies of "
        "checkpoints in the model registry",
    ]


def _work(estimate: Estimate) -> list[str]:
    heads = ("work", "steps", "rows a step", "tokens, M", "pictures, k", "PFLOP")
    rows: list[tuple[str, ...]] = [(*heads, "again", "once", "hours")]
    for stage in estimate.stages:
        rows.append(
            (
                stage.stage.value,
                amount(stage.steps, 1, 0),
                f"{stage.rows_per_step:,}",
                amount(stage.tokens, 1e6, 1),
                amount(stage.images, 1e3, 1),
                *(amount(one, 1e15, 1) for one in (stage.operations, stage.repeated, stage.once)),
                amount(stage.hours, 1, 2),
            )
        )
    lines = text_table(rows, left={0})
    if estimate.peak_flops is None:
        computes = ", ".join(sorted({stage.precision for stage in estimate.stages}))
        lines.append(
            f"hours: no peak of {estimate.device} in {computes} is known; name a GPU that computes "
            "in bf16 with --gpu, or set hardware.peak_tflops"
        )
    else:
        lines.append(
            f"hours at {estimate.peak_flops / 1e12:,.0f} TFLOP/s times MFU {estimate.mfu_source}"
        )
    asked = estimate.evaluation
    answers, tokens = amount(asked.answers, 1, 0), amount(asked.tokens, 1e6, 2)
    lines.append(
        f"evaluation: {answers} answers, {tokens} M tokens written (no hours: reading weights, not "
        "arithmetic, takes them)"
    )
    return lines


def amount(one: Amount, unit: float, places: int) -> str:
    """A value in a unit, `≤` before one that can only be less, `?` for none."""
    if one.value is None:
        return "?"
    if one.value == 0:
        return "–"
    said = f"{one.value / unit:,.{places}f}"
    return said if one.sure == "known" else f"≤{said}"


def mib(size: float) -> str:
    """Bytes in MiB."""
    return f"{size / MIB:,.1f}"


def gib(size: float) -> str:
    """Bytes in GiB, to three digits or so."""
    value = size / GIB
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"
