"""Who runs: our settings, and the peer's best, which `--search` found."""

from __future__ import annotations

from benchmarks.training.compare import Variant
from benchmarks.training.scenario import Scenario

TRL = "TRL"
#: torch asks the kernel for large pages then; without, half of what some steps do is page faults.
LARGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}

#: What `python -m benchmarks.training --model M --stage S --search` found quickest; see docs.
BEST = {"gradient_checkpointing": False, "sampling": "group_by_length"}
#: With Qwen's vocabulary on a CPU the peer is quickest and leanest on a quarter of a step's rows
#: at a time: its head makes logits of every position.
QUARTERS = 4


def variants(scenario: Scenario) -> list[Variant]:
    """The lines of a comparison; the first of the peer's is what ratios are to."""
    ours = [Variant("ours", "ours")]
    if scenario.stage == "2":
        ours.append(Variant("ours, cached features", "ours", {"cached_features": True}))
    best = BEST | {"workers": scenario.size.loader_workers}
    if scenario.model == "50m":
        best |= {"accumulation": QUARTERS}
        quarter = {"accumulation": QUARTERS, "batch_size": scenario.rows_per_step // QUARTERS}
        ours.append(Variant("ours, in quarters", "ours", quarter))
    peer = [
        Variant(TRL, "peer", best),
        Variant(f"{TRL}, leanest", "peer", best | {"gradient_checkpointing": True}),
    ]
    if scenario.model != "full":  # a GPU has it anyway
        peer.append(Variant(f"{TRL}, head as on a GPU", "peer", best | {"compact_head": True}))
    return [*ours, *peer]


def candidates(scenario: Scenario) -> list[Variant]:
    """Settings of the peer that differ from `BEST` in one thing each, TRL's defaults last."""
    best = BEST | {"workers": scenario.size.loader_workers}
    other = "sdpa" if scenario.size.attention == "eager" else "eager"
    changes: dict[str, dict] = {
        "best": {},
        "random order": {"sampling": "random"},
        f"{other} attention": {"attention": other},
        "1 worker": {"workers": 1},
        "2 workers": {"workers": 2},
        "half batches x 2": {"accumulation": 2},
        "checkpointing": {"gradient_checkpointing": True},
    }
    if scenario.model == "full":
        changes |= {"16 workers": {"workers": 16}, "no workers": {"workers": 0}}
    found = [Variant(name, "peer", best | change) for name, change in changes.items()]
    found.append(Variant("large pages", "peer", best, LARGE_PAGES))
    found.append(Variant("TRL's defaults", "peer", {}))
    return found
