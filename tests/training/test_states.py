"""Resumable states on disk: whole or not used, kept or removed, and what a full disk does."""

import errno
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from siqvl.errors import UserError
from siqvl.recipe import Stage
from siqvl.training.states import (
    CHECKSUMS,
    damage,
    disk_full,
    forget_older,
    last_good_state,
    publish,
    seal,
    staged_state,
    states,
)
from tests.training.changed_recipe import changed
from tests.training.made_trainer import made_trainer
from tests.training.stopping import StopAfter

fork = multiprocessing.get_context("fork")


def save(work_dir: Path, step: int) -> Path:
    """A state of three small files, one of them in a folder."""
    staged = staged_state(work_dir, step)
    (staged / "shards").mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(bytes(range(100)))
    (staged / "optimizer.pt").write_bytes(b"moments")
    (staged / "shards" / "rng.pth").write_bytes(b"numbers")
    seal(staged)
    return publish(staged, work_dir)


def names(work_dir: Path) -> list[str]:
    return sorted(path.name for path in work_dir.iterdir())


def test_the_checksums_are_sha256_of_every_file(tmp_path: Path) -> None:
    state = save(tmp_path, 3)
    assert names(tmp_path) == ["checkpoint-3"]
    assert json.loads((state / CHECKSUMS).read_text()) == {
        "model.safetensors": {
            "bytes": 100,
            "sha256": hashlib.sha256(bytes(range(100))).hexdigest(),
        },
        "optimizer.pt": {"bytes": 7, "sha256": hashlib.sha256(b"moments").hexdigest()},
        "shards/rng.pth": {"bytes": 7, "sha256": hashlib.sha256(b"numbers").hexdigest()},
    }
    assert damage(state) is None


DAMAGES = {
    "torn": (lambda s: os.truncate(s / "model.safetensors", 40), "has 40 bytes where 100 belong"),
    "empty": (lambda s: os.truncate(s / "optimizer.pt", 0), "has 0 bytes where 7 belong"),
    "another byte": (
        lambda s: (s / "shards" / "rng.pth").write_bytes(b"numberz"),
        "the checksum of shards/rng.pth is wrong",
    ),
    "missing": (lambda s: (s / "optimizer.pt").unlink(), "it lacks optimizer.pt"),
    "added": (lambda s: (s / "scheduler.pt").write_bytes(b"x"), "scheduler.pt does not belong"),
    "added link": (lambda s: (s / "scaler.pt").symlink_to("/etc"), "scaler.pt does not belong"),
    "unsealed": (lambda s: (s / CHECKSUMS).unlink(), f"it has no {CHECKSUMS}"),
    "half sealed": (lambda s: os.truncate(s / CHECKSUMS, 50), f"its {CHECKSUMS} is damaged"),
    "no mapping": (lambda s: (s / CHECKSUMS).write_text("[1]"), f"its {CHECKSUMS} is damaged"),
    "no entries": (lambda s: (s / CHECKSUMS).write_text('{"a": 1}'), f"its {CHECKSUMS} is damaged"),
    "no text": (lambda s: (s / CHECKSUMS).write_bytes(b"\xff"), f"its {CHECKSUMS} is damaged"),
    "nested": (lambda s: (s / CHECKSUMS).write_text("[" * 100_000), f"its {CHECKSUMS} is damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_of_a_damaged_state_the_one_before_is_used(tmp_path: Path, name: str, caplog) -> None:
    spoil, reason = DAMAGES[name]
    older, newest = save(tmp_path, 9), save(tmp_path, 10)
    spoil(newest)
    assert last_good_state(tmp_path) == older
    assert str(newest) in caplog.text
    assert reason in caplog.text
    assert names(tmp_path) == ["checkpoint-9"]  # so that step 10 can be saved again
    assert save(tmp_path, 10) == last_good_state(tmp_path)


def test_no_state_is_good_when_all_are_torn(tmp_path: Path) -> None:
    for step in (1, 2):
        os.truncate(save(tmp_path, step) / "optimizer.pt", 1)
    assert last_good_state(tmp_path) is None
    assert last_good_state(tmp_path / "never made") is None


def test_what_dead_runs_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    good = save(tmp_path, 2)
    staged = staged_state(tmp_path, 3)
    staged.mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(b"half")
    (tmp_path / "non-finite-step-3.json").write_text("{}")
    (tmp_path / "checkpoint-best").mkdir()
    assert last_good_state(tmp_path) == good
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-best", "non-finite-step-3.json"]


@pytest.mark.parametrize(
    ("keep", "left"), [(1, [10]), (2, [9, 10]), (3, [5, 9, 10]), (7, [2, 5, 9, 10])]
)
def test_the_newest_are_kept_by_number_not_by_name(tmp_path: Path, keep: int, left) -> None:
    for step in (2, 5, 9, 10):
        newest = save(tmp_path, step)
    forget_older(newest, keep)
    assert names(tmp_path) == sorted(f"checkpoint-{step}" for step in left)


def test_a_state_that_is_half_removed_is_none(tmp_path: Path, monkeypatch) -> None:
    """A kill in the middle of a removal: some files are gone, the others are not found."""
    save(tmp_path, 1), save(tmp_path, 2)
    real = shutil.rmtree

    def some(path, ignore_errors=False):
        if path.is_dir():
            (path / "optimizer.pt").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", some)
    with pytest.raises(KeyboardInterrupt):
        forget_older(tmp_path / "checkpoint-2", 1)
    assert [state.name for state in states(tmp_path)] == ["checkpoint-2"]
    monkeypatch.setattr(shutil, "rmtree", real)
    last_good_state(tmp_path)
    assert names(tmp_path) == ["checkpoint-2"]


def test_a_step_that_is_saved_again_takes_the_place_of_the_old(tmp_path: Path) -> None:
    old = save(tmp_path, 4)
    (old / "stale").write_bytes(b"x")
    assert damage(save(tmp_path, 4)) is None
    assert names(tmp_path) == ["checkpoint-4"]


# Of a trainer


def small(trained, **values):
    common = {"max_steps": 6, "saving_steps": 1, "batch_size": 2, "accumulation": 1}
    return changed(trained.recipe, Stage.VQA_SFT, **(common | {"batching": "padded"} | values))


def test_a_trainer_keeps_as_many_states_as_the_recipe_says(trained, tmp_path: Path) -> None:
    trainer = made_trainer(trained, small(trained, kept_states=3), tmp_path)
    trainer.train()
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-5", "checkpoint-6"]
    newest = tmp_path / "checkpoint-6"
    assert last_good_state(tmp_path) == newest
    # everything that is unpickled holds tensors, numbers and text alone, and nothing else is there
    from transformers.trainer_pt_utils import safe_globals

    with safe_globals():
        for path in [*newest.glob("*.pt"), *newest.glob("*.pth")]:
            torch.load(path, weights_only=True)
    assert not list(newest.glob("*.bin"))
    size = sum(path.stat().st_size for path in newest.rglob("*"))
    assert trainer.state_bytes() == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_files_of_a_state_follow_the_umask(
    trained, tmp_path: Path, umask: int, mode: int
) -> None:
    """transformers writes the weights with safetensors, and so do we the mean of them."""
    recipe = small(trained, max_steps=2, ema=0.5)
    before = os.umask(umask)
    try:
        made_trainer(trained, recipe, tmp_path).train()
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"model.safetensors", "ema.safetensors"} <= {path.name for path in files}
    assert {path.name for path in files if path.stat().st_mode & 0o777 != mode} == set()


def test_a_torn_state_is_not_resumed_from(trained, tmp_path: Path) -> None:
    recipe = small(trained)
    made_trainer(trained, recipe, tmp_path / "a").train()
    with pytest.raises(InterruptedError):
        made_trainer(
            trained, recipe, tmp_path / "b", callbacks=[StopAfter(5, InterruptedError())]
        ).train()
    os.truncate(tmp_path / "b" / "checkpoint-4" / "optimizer.pt", 1000)
    again = made_trainer(trained, recipe, tmp_path / "b")
    state = last_good_state(tmp_path / "b")
    assert state == tmp_path / "b" / "checkpoint-3"
    again.train(resume_from_checkpoint=str(state))
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        digests = [
            json.loads((tmp_path / run / "checkpoint-6" / CHECKSUMS).read_text())[name]
            for run in ("a", "b")
        ]
        assert digests[0] == digests[1], name


def test_extra_state_is_sealed_and_read_before_training_begins(trained, tmp_path: Path) -> None:
    recipe, events = small(trained, max_steps=3), []

    class Began(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs) -> None:
            events.append("began")

    trainer = made_trainer(trained, recipe, tmp_path)
    trainer.write_extra_state = lambda folder: (folder / "extra.json").write_text("7")
    trainer.train()
    sealed = json.loads((tmp_path / "checkpoint-3" / CHECKSUMS).read_text())
    assert sealed["extra.json"]["sha256"] == hashlib.sha256(b"7").hexdigest()
    assert not events

    for state, expected in ((tmp_path / "checkpoint-2", ["7", "began"]), (None, ["began"])):
        events.clear()
        again = made_trainer(trained, recipe, tmp_path, callbacks=[Began()])
        again.read_extra_state = lambda folder: events.append((folder / "extra.json").read_text())
        again.train(resume_from_checkpoint=state and str(state))
        assert events == expected


# Disks


def test_states_that_will_not_fit_are_refused_before_the_first_step(
    trained, tmp_path: Path, monkeypatch
) -> None:
    trainer = made_trainer(trained, small(trained, max_steps=3, kept_states=4), tmp_path)
    weights = sum(value.nbytes for value in trainer.model.parameters())
    learn = sum(value.nbytes for value in trainer.model.parameters() if value.requires_grad)
    size = weights + sum(value.nbytes for value in trainer.model.buffers()) + 2 * learn
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * size - 1))
    with pytest.raises(UserError, match=r"will take 0\.\d+ GB \(3 of .* GB free; free some space"):
        trainer.train()
    assert trainer.state.global_step == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * size))
    trainer.state_copies = 1  # an archive of one of them
    with pytest.raises(UserError, match=r"\(4 of "):
        trainer.train()
    trainer.state_copies = 0
    trainer.train()
    # three states are there by now, and only two are kept: one more is the most there ever is
    more = made_trainer(trained, small(trained, max_steps=9, kept_states=3), tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size - 1))
    with pytest.raises(UserError, match=r"\(1 of "):
        more.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def fill(trained, folder: Path, limit: int, extra: int, results) -> None:
    """In a child: no file may grow beyond `limit` bytes from the third step on."""
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN  # so that writing fails instead
    torch.set_num_threads(1)  # a fork has none of its parent's threads, and would wait for them

    class Fill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            if state.global_step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    trainer = made_trainer(trained, small(trained), folder, callbacks=[Fill()])
    write_all = trainer.write_extra_state

    def write(state: Path) -> None:
        write_all(state)
        (state / "extra").write_bytes(bytes(extra))

    trainer.write_extra_state = write
    try:
        trainer.train()
    except UserError as error:
        results.put((error.message, repr(error.__cause__)))


@pytest.mark.integration
def test_a_full_disk_is_named_and_leaves_the_state_before(trained, tmp_path: Path) -> None:
    """Each of the three writers, at the size of its file: safetensors, torch and Python."""
    whole = made_trainer(trained, small(trained, max_steps=1), tmp_path / "sizes")
    whole.train()
    state = tmp_path / "sizes" / "checkpoint-1"
    model, moments = (
        (state / name).stat().st_size for name in ("model.safetensors", "optimizer.pt")
    )
    assert model < moments  # or the limit between them would stop the first
    for limit, extra, cause in (
        (model - 1, 0, "SafetensorError"),
        (moments - 1, 0, "RuntimeError"),
        (moments, moments + 1, f"OSError({errno.EFBIG}"),
    ):
        folder, results = tmp_path / str(limit), fork.SimpleQueue()
        child = fork.Process(target=fill, args=(trained, folder, limit, extra, results))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        message, raised = results.get()
        assert raised.startswith(cause)
        assert message.startswith(f"{folder} is on a full disk: the state of step 3 could not be")
        assert "that of step 2 is intact: free some space and start again, which" in message
        assert names(folder) == ["checkpoint-1", "checkpoint-2"]
        assert damage(folder / "checkpoint-2") is None
    again = made_trainer(trained, small(trained), folder)
    again.train(resume_from_checkpoint=str(last_good_state(folder)))
    assert again.state.global_step == 6


def test_only_a_full_disk_is_taken_for_one() -> None:
    assert disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert disk_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not disk_full(PermissionError(errno.EACCES, "Permission denied"))
    assert not disk_full(RuntimeError("CUDA out of memory"))


@pytest.mark.integration
def test_another_failure_while_saving_leaves_no_half_state(trained, tmp_path: Path) -> None:
    trainer = made_trainer(trained, small(trained), tmp_path)

    def write(state: Path) -> None:
        if state.name == "checkpoint-2":
            raise PermissionError(errno.EACCES, "Permission denied")

    trainer.write_extra_state = write
    with pytest.raises(PermissionError):
        trainer.train()
    assert names(tmp_path) == ["checkpoint-1"]
