"""The plain training loop of both tiny parts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import torch
from tqdm import tqdm


def fit(
    parameters: list[torch.nn.Parameter],
    loss_of_step: Callable[[int], torch.Tensor],
    *,
    steps: int,
    title: str,
    warmup: int = 50,
) -> None:
    """AdamW with warm-up and cosine decay; the bar shows the mean loss of the last 50 steps."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps)),
    )
    losses: deque[float] = deque(maxlen=50)
    with tqdm(range(steps), desc=title, unit="step") as bar:
        for step in bar:
            loss = loss_of_step(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.set_postfix(loss=f"{sum(losses) / len(losses):.3f}", refresh=False)
