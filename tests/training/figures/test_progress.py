"""What is said while a run of Hugging Face's trainer goes on."""

import io

import pytest
import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from siqvl.training.figures.progress import Pace, Progress, in_words

SAID = "loss 1.250, 12,346 tokens/s, 3 % waiting for data"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


class Model(torch.nn.Module):
    """Takes some seconds of the clock for each step."""

    def __init__(self, clock: Clock, seconds: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.clock, self.seconds = clock, iter(seconds)

    def forward(self, x, labels=None):
        self.clock.time += next(self.seconds)
        return {"loss": self.weight * 0 + 1.25}


class Logging(Trainer):
    def log(self, logs, *args, **kwargs) -> None:
        logs |= {"tokens_per_second": 12345.6, "data_wait_share": 0.034}
        super().log(logs, *args, **kwargs)


def train(tmp_path, stream, seconds: list[float], **options) -> Trainer:
    clock = Clock()
    arguments = {"logging_steps": 1, "save_steps": 4, "disable_tqdm": True, "report_to": "none"}
    resume = options.pop("resume", None)
    trainer = Logging(
        Model(clock, seconds),
        TrainingArguments(
            str(tmp_path), max_steps=8, per_device_train_batch_size=1, **arguments | options
        ),
        train_dataset=[{"x": torch.zeros(1), "labels": 0}] * 8,
        callbacks=[Progress("vqa_sft", stream=stream, clock=clock)],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_line_now_and_then_without_a_terminal(tmp_path, capsys) -> None:
    """Lines are half a minute apart or more; the first step is slow, the others are not."""
    stream = io.StringIO()
    train(tmp_path, stream, [100, 10, 10, 10, 10, 10, 10, 10])
    assert stream.getvalue().splitlines() == [
        "vqa_sft: step 1 of 8, 12 min left",  # nothing was logged yet
        f"vqa_sft: step 4 of 8, {SAID}, 40 s left",
        f"vqa_sft: step 7 of 8, {SAID}, 10 s left",
        f"vqa_sft: step 8 of 8, {SAID}",
    ]
    assert "loss" not in capsys.readouterr().out  # transformers prints nothing beside it


def test_a_bar_on_a_terminal(tmp_path) -> None:
    stream = Terminal()
    train(tmp_path, stream, [1.0] * 8)
    last = stream.getvalue().split("\r")[-1]
    assert "vqa_sft 100%" in last
    assert f"8/8, {SAID}" in last
    assert "\n" not in stream.getvalue().rstrip("\n")  # one bar


def test_a_resumed_run_tells_its_own_pace(tmp_path) -> None:
    """It begins at step 4; the 300 s before the interruption do not count."""
    train(tmp_path, io.StringIO(), [300] * 8)
    stream = io.StringIO()
    train(tmp_path, stream, [31, 40, 40, 40], resume=str(tmp_path / "checkpoint-4"))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "vqa_sft: step 5 of 8, 93 s left"
    assert lines[1] == f"vqa_sft: step 6 of 8, {SAID}, 80 s left"


def test_other_processes_are_quiet(tmp_path) -> None:
    stream = io.StringIO()
    progress = Progress("dpo", stream=stream, clock=(clock := Clock()))
    state = type("State", (), {"global_step": 0, "max_steps": 3, "is_world_process_zero": False})()
    progress.on_train_begin(None, state, None)
    for state.global_step in range(1, 4):
        clock.time += 60
        progress.on_step_end(None, state, None)
    progress.on_train_end(None, state, None)
    assert stream.getvalue() == ""


def test_the_pace_is_that_of_the_last_steps() -> None:
    pace = Pace(0.0, 0)
    assert pace.seconds_a_step() is None
    for step in range(1, 101):
        pace.reached(10.0 * step if step <= 50 else 500 + 2.0 * (step - 50), step)
    assert pace.seconds_a_step() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3600, "60 min"), (6000, "1 h 40 min"),
     (11_100, "3 h 05 min")],
)  # fmt: skip
def test_durations(seconds, words) -> None:
    assert in_words(seconds) == words
