"""What a step of rewards gives for its time: completions are counted as they are written."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from siqvl.training.figures.telemetry import GIB, Telemetry, peak_memory


class RolloutFigures(Telemetry):
    """Telemetry of a stage whose tokens no plan knows before they are written."""

    _written = (0, 0, 0.0)  # tokens, completions and seconds of writing since the last figures

    def wrote(self, tokens: int, completions: int, seconds: float) -> None:
        """Counts what this process has written."""
        before = self._written
        self._written = (before[0] + tokens, before[1] + completions, before[2] + seconds)

    def figures(self, step: int) -> dict[str, float]:
        """What happened since the last call; every process has to ask, at the same step.

        Tokens and completions are those of all processes together, as they were written; the share
        of the time that writing took, and peak memory, are this one's.
        """
        if step <= self._step:
            return {}
        now = self._clock()
        seconds = max(now - self._time, 1e-9)
        tokens, completions, writing = self._written
        self._step, self._time, self.waited, self._written = step, now, 0.0, (0, 0, 0.0)
        tokens, completions = _sums(tokens, completions)
        return {
            "written_tokens_per_second": tokens / seconds,
            "completions_per_second": completions / seconds,
            "rollout_share": writing / seconds,
            "peak_memory_gib": peak_memory() / GIB,
        }


def _sums(*values: int) -> Any:
    """Each value, summed over all processes."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return values
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    together = torch.tensor(values, device=device)
    dist.all_reduce(together)
    return together.tolist()
