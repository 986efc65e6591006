"""How far training is: one bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm
from transformers import TrainerCallback, TrainerState

RECENT = 30  # steps whose pace tells when training ends
SECONDS_A_LINE = 30.0


class Progress(TrainerCallback):
    """Takes the place of transformers' `ProgressCallback` and `PrinterCallback`.

    It is quiet in all processes but the first. What is said of loss, tokens and waiting comes from
    the trainer's logs.

    Args:
        name: of what is trained, such as the stage.
        stream: where to write; stderr if None.
        clock: seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._stream = stream or sys.stderr
        self._clock = clock
        self._bar: Any = None
        self._logs: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._pace = Pace(self._clock(), state.global_step)
        self._said = self._clock()
        if state.is_world_process_zero and self._stream.isatty():
            self._bar = tqdm(
                desc=self.name,
                total=state.max_steps,
                initial=state.global_step,
                file=self._stream,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}",
            )

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._pace.reached(self._clock(), state.global_step)
        if self._bar is not None:
            self._bar.set_postfix_str(self._words(state), refresh=False)
            self._bar.update(state.global_step - self._bar.n)
        elif self._clock() - self._said >= SECONDS_A_LINE:
            self._say(state)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        numbers = {key: one for key, one in (logs or {}).items() if isinstance(one, int | float)}
        if "loss" in numbers:  # not the summary of the whole run
            self._logs = numbers

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._words(state))
            self._bar.close()
            self._bar = None
        else:
            self._say(state)

    def _say(self, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        self._said = self._clock()
        words = self._words(state, f"step {state.global_step:,} of {state.max_steps:,}")
        self._stream.write(f"{self.name}: {words}\n")
        self._stream.flush()

    def _words(self, state: TrainerState, *first: str) -> str:
        """What the trainer logged last and the time that is left, behind what comes first."""
        parts = list(first)
        if "loss" in self._logs:
            parts.append(f"loss {self._logs['loss']:.3f}")
        if "reward" in self._logs:
            parts.append(f"reward {self._logs['reward']:.3f}")
        if "tokens_per_second" in self._logs:
            parts.append(f"{self._logs['tokens_per_second']:,.0f} tokens/s")
        if "data_wait_share" in self._logs:
            parts.append(f"{100 * self._logs['data_wait_share']:.0f} % waiting for data")
        left = state.max_steps - state.global_step
        seconds = self._pace.seconds_a_step()
        if left > 0 and seconds is not None:
            parts.append(f"{in_words(left * seconds)} left")
        return ", ".join(parts)


class Pace:
    """Seconds a step takes, by the most recent ones.

    A mean since the start would believe in the first steps, which are slow, for hours; and a
    resumed run must not count steps that it has not made.
    """

    def __init__(self, now: float, step: int) -> None:
        self._start: tuple[float, int] | None = (now, step)
        self._ends: deque[tuple[float, int]] = deque(maxlen=RECENT + 1)

    def reached(self, now: float, step: int) -> None:
        """Training has made `step` steps."""
        self._ends.append((now, step))
        if len(self._ends) > 1:
            self._start = None  # the first step, with all that had to get going, is left out

    def seconds_a_step(self) -> float | None:
        """None before a step was made."""
        if not self._ends:
            return None
        (since, first), (now, last) = self._start or self._ends[0], self._ends[-1]
        return (now - since) / (last - first) if last > first else None


def in_words(seconds: float) -> str:
    """A duration to the precision in which one waits: `45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
