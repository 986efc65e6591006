"""Who runs: our settings, and the peer's best, which `--search` found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.training.compare import Variant
from benchmarks.training.scenario import Scenario

TRL = "TRL"
NANOVLM = "nanoVLM"
OTHER_BUILD = "the other build"
#: torch asks the kernel for large pages then; without, half of what some steps do is page faults.
LARGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}

#: What `python -m benchmarks.training --model tiny --stage 2 --search` found: in random order TRL
#: has 0.56 of the rate, with checkpointing 0.83; workers and sdpa differ by no more than runs do.
#: Compiled layers give 1.05 of it, in bf16 1.10, and ours 1.18 and 1.08, after half a minute of
#: starting, which neither side is charged with here: both run without.
BEST = {"gradient_checkpointing": False, "sampling": "group_by_length"}
#: Batches that the peer is quickest with, of a step's rows; a step of one batch where none is said.
#: Each in turns with 1, 2 and 4 (2026-11-24): small batches fit into a CPU's caches, and with
#: Qwen's vocabulary TRL's head makes fewer logits at once. For 50m measured in stage 2 alone.
BATCHES = {
    ("tiny", "2", "fp32"): 4,  # 1.13 of the rate with one, single runs
    ("tiny", "2", "bf16"): 2,  # 1.23
    ("tiny", "dpo", "fp32"): 4,  # 1.11
    ("tiny", "dpo", "bf16"): 2,  # 1.17
    ("50m", "1", "fp32"): 4,
    ("50m", "2", "fp32"): 4,  # 1.70, and 0.46 of the memory
    ("50m", "dpo", "fp32"): 4,
    # with LoRA: 1.44 of the rate with one, and 0.49 of the memory; 8 batches 0.99 and 0.80 of this
    ("0.5b", "2", "fp32"): 4,
}
#: Answer tokens whose logits are in memory at once, where memory counts more than time.
LEAN = 64


def best_of_peer(scenario: Scenario) -> dict[str, Any]:
    """The quickest settings of the peer that were found."""
    batches = BATCHES.get((scenario.model, scenario.stage, scenario.precision), 1)
    if scenario.rows_per_step % batches:
        batches = 1
    return BEST | {"workers": scenario.size.loader_workers, "accumulation": batches}


def variants(scenario: Scenario) -> list[Variant]:
    """The lines of a comparison; the first of the peer's is what ratios are to."""
    ours = [Variant("ours", "ours")]
    if scenario.stage == "2":
        ours.append(Variant("ours, cached features", "ours", {"cached_features": True}))
    best = best_of_peer(scenario)
    if (batches := best["accumulation"]) > 1:
        smaller = {"accumulation": batches, "batch_size": scenario.rows_per_step // batches}
        ours.append(Variant("ours, in TRL's batches", "ours", smaller))
        if scenario.model != "tiny":  # whose head is small
            ours.append(Variant("ours, lean", "ours", smaller | {"head_chunk": LEAN}))
        if scenario.adapter and scenario.rows_per_step % (2 * batches) == 0:
            half = scenario.rows_per_step // (2 * batches)
            halves = {"accumulation": 2 * batches, "batch_size": half}
            ours.append(Variant("ours, leanest", "ours", halves | {"head_chunk": LEAN}))
    peer = [
        Variant(TRL, "peer", best),
        Variant(f"{TRL}, leanest", "peer", best | {"gradient_checkpointing": True}),
    ]
    if scenario.model != "full":  # a GPU has it anyway
        peer.append(Variant(f"{TRL}, head as on a GPU", "peer", best | {"compact_head": True}))
    return [*ours, *peer]


def beside(scenario: Scenario, peer: Path | None, build: Path | None) -> list[Variant]:
    """The lines of a comparison with nanoVLM, another build of ours, or both.

    The last line is what ratios are to. Ours is in one batch a step, as they are.

    Args:
        peer: a checkout of nanoVLM.
        build: a checkout of ours.
    """
    cached = scenario.stage == "1"
    lines = [Variant("ours", "ours", {"cached_features": cached})]
    if not cached:
        lines.append(Variant("ours, cached features", "ours", {"cached_features": True}))
    if build is not None:
        lines += [
            replace(one, name=f"{OTHER_BUILD}{one.name[4:]}", checkout=build) for one in lines
        ]
    if peer is not None:
        lines.append(Variant(NANOVLM, "nanovlm", {"path": str(peer)}))
    return lines if peer is not None else [lines[0], lines[len(lines) // 2]]


def candidates(scenario: Scenario) -> list[Variant]:
    """Settings of the peer that differ from its best in one thing each, TRL's defaults last."""
    best = best_of_peer(scenario)
    other = "sdpa" if scenario.size.attention == "eager" else "eager"
    changes: dict[str, dict[str, Any]] = {
        "best": {},
        "random order": {"sampling": "random"},
        f"{other} attention": {"attention": other},
        "1 worker": {"workers": 1},
        "2 workers": {"workers": 2},
        "checkpointing": {"gradient_checkpointing": True},
        "compiled layers": {"compile": "layers"},
        "compiled model": {"compile": "model"},
    }
    for batches in (1, 2, 4, 8):
        if scenario.rows_per_step % batches == 0 and batches != best["accumulation"]:
            changes[f"{batches} batches a step"] = {"accumulation": batches}
    if scenario.model == "full":
        changes |= {"16 workers": {"workers": 16}, "no workers": {"workers": 0}}
    found = [Variant(name, "peer", best | change) for name, change in changes.items()]
    found.append(Variant("large pages", "peer", best, LARGE_PAGES))
    found.append(Variant("TRL's defaults", "peer", {}))
    return found
