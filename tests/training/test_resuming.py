"""A state is gone on from where recipe, rows and code are the same, and refused aloud elsewhere."""

import json
import logging
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from siqvl.checkpoint import read_history
from siqvl.data.manifest import Manifest
from siqvl.errors import UserError
from siqvl.recipe import Recipe, Stage
from siqvl.training import resuming
from siqvl.training.places import all_states, own_place
from siqvl.training.resuming import (
    Provenance,
    is_usable,
    judge_states,
    keep_threads,
    state_folder,
)
from siqvl.training.stage import train_stage
from siqvl.training.states import CHECKSUMS
from tests.training.changed_recipe import changed
from tests.training.stopping import stopped_after

SFT = Stage.VQA_SFT
HERE = Provenance("a" * 64, {"torch": "2.13.0", "transformers": "5.23.0"}, 2)


def with_key(recipe: Recipe, section: str, key: str, value: object) -> Recipe:
    content = recipe.model_dump(mode="json")
    content[section] |= {key: value}
    return Recipe.model_validate(content)


@pytest.fixture
def manifest(trained) -> Manifest:
    return Manifest.read(trained.data(SFT))


@pytest.fixture
def written_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Provenance, "here", classmethod(lambda cls, *_: HERE))


def made_state(folder: Path, step: int, written: Provenance | None) -> Path:
    state = folder / f"checkpoint-{step}"
    state.mkdir(parents=True)
    (state / CHECKSUMS).write_text("{}")
    if written is not None:
        written.write(state)
        (state / CHECKSUMS).write_text(json.dumps({resuming.PROVENANCE: {}}))
    return state


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training", {"memory": "64Gi"}),
        ("schedule", "@daily"),
    ],
)
def test_more_memory_after_a_kill_finds_the_states(trained, manifest, key: str, value) -> None:
    recipe = with_key(trained.recipe, "compute", key, value)
    recipe = changed(recipe, SFT, saving_steps=3, kept_states=5, loader_workers=0)
    other = recipe.model_copy(update={"changed_code": "go_on", "name": "renamed"})
    folders = {
        state_folder(Path("out"), each, SFT, "parent", manifest)
        for each in (trained.recipe, recipe, other)
    }
    assert len(folders) == 1


def test_other_figures_parents_and_rows_have_other_states(trained, manifest) -> None:
    other_rows = manifest.model_copy(update={"fingerprint": "f" * 64})
    recipe = trained.recipe
    folders = {
        state_folder(Path("out"), recipe, SFT, "parent", manifest),
        state_folder(Path("out"), recipe, SFT, "another", manifest),
        state_folder(Path("out"), recipe, SFT, None, manifest),
        state_folder(Path("out"), recipe, SFT, "parent", other_rows),
        state_folder(Path("out"), recipe, Stage.COT_SFT, "parent", manifest),
        state_folder(Path("other"), recipe, SFT, "parent", manifest),
        state_folder(Path("out"), changed(recipe, SFT, learning_rate=0.5), SFT, "parent", manifest),
        state_folder(Path("out"), recipe.model_copy(update={"seed": 9}), SFT, "parent", manifest),
    }
    assert len(folders) == 8


OTHERS = [
    (Provenance("b" * 64, HERE.libraries, 2), "siqvl's own"),
    (Provenance(HERE.code, HERE.libraries | {"torch": "2.12.1"}, 2), "torch 2.12.1, here 2.13.0"),
    (None, "siqvl 0.1"),
]


@pytest.mark.usefixtures("written_here")
@pytest.mark.parametrize(("written", "named"), OTHERS, ids=["code", "torch", "0.1"])
def test_a_state_of_other_code_is_refused_until_the_recipe_says_what_to_do(
    tmp_path: Path, caplog, written: Provenance | None, named: str
) -> None:
    output, folder = tmp_path / "out", tmp_path / ".out.training-key"
    made_state(folder, 40, written)
    with pytest.raises(UserError, match=f"step 40 .*{named}.*go_on.*begin_anew"):
        judge_states(folder, output, "refuse")
    judge_states(folder, output, "go_on")
    assert "going on" in caplog.text
    assert len(all_states(folder)) == 1
    judge_states(folder, output, "begin_anew")
    assert "beginning anew" in caplog.text
    with own_place(folder, partial(is_usable, changed_code="begin_anew")) as (_, state):
        assert state is None
    assert not all_states(folder)


def test_what_takes_part_besides_is_named_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Provenance.here("peft", "no-such-library")
    assert written.libraries.keys() == {"torch", "transformers", "peft", "no-such-library"}
    assert written.libraries["peft"] == version("peft")
    assert written.libraries["no-such-library"] == "none"
    output, folder = tmp_path / "out", tmp_path / ".out.training-key"
    made_state(folder, 3, written)
    judge_states(folder, output, "refuse")
    own = resuming.version
    monkeypatch.setattr(resuming, "version", lambda name: "99" if name == "peft" else own(name))
    with pytest.raises(UserError, match=rf"other code \(peft {version('peft')}, here 99\)"):
        judge_states(folder, output, "refuse")


@pytest.mark.usefixtures("written_here")
def test_neither_threads_nor_a_damaged_state_are_other_code(tmp_path: Path, caplog) -> None:
    output, folder = tmp_path / "out", tmp_path / ".out.training-key"
    judge_states(folder, output, "refuse")
    made_state(folder, 3, Provenance(HERE.code, HERE.libraries, 7))
    (made_state(folder, 5, HERE) / resuming.PROVENANCE).write_text("{")
    judge_states(folder, output, "refuse")
    assert not caplog.records


@pytest.mark.usefixtures("written_here")
def test_states_of_another_recipe_are_named(tmp_path: Path, caplog) -> None:
    made_state(tmp_path / ".out.training-other", 3, HERE)
    judge_states(tmp_path / ".out.training-key", tmp_path / "out", "refuse")
    assert ".out.training-other are of another recipe or other rows: not used" in caplog.text


def test_as_many_threads_compute_as_before(tmp_path: Path, caplog) -> None:
    own = torch.get_num_threads()
    try:
        keep_threads(None)
        keep_threads(made_state(tmp_path, 3, Provenance("", {}, own)))
        assert not caplog.records
        keep_threads(made_state(tmp_path, 4, Provenance("", {}, own + 1)))
        assert torch.get_num_threads() == own + 1
        assert f"with {own + 1} CPU threads, as the steps before: with {own}" in caplog.text
    finally:
        torch.set_num_threads(own)


def test_code_is_what_decides_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest() -> str:
        resuming._code.cache_clear()
        return resuming._code()

    root = tmp_path / "siqvl"
    for name in ("training/loop/planned.py", "model/projector.py", "serving/asked.py"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("one = 1\n")
    monkeypatch.setattr(resuming, "__file__", str(root / "training" / "resuming.py"))
    before = digest()
    (root / "serving" / "asked.py").write_text("one = 2\n")
    (root / "training" / "loop" / "notes.txt").write_text("no code")
    assert digest() == before
    (root / "model" / "projector.py").write_text("one = 2\n")
    assert digest() != before
    resuming._code.cache_clear()


@pytest.mark.integration
def test_a_killed_stage_goes_on_with_more_memory_and_its_own_threads(
    trained, tmp_path: Path, caplog
) -> None:
    """To the weights of one run, although it is asked for another number of threads then."""
    recipe = changed(trained.recipe, SFT, max_steps=5, saving_steps=2, logging_steps=1)
    common = {"data": trained.data(SFT), "checkpoint": trained.parent(SFT)}
    train_stage(SFT, recipe, **common, output=tmp_path / "straight")
    straight_threads = torch.get_num_threads()

    with stopped_after(3), pytest.raises(RuntimeError, match="killed"):
        train_stage(SFT, recipe, **common, output=tmp_path / "killed")
    more = with_key(recipe, "compute", "training", {"memory": "64Gi"})
    more = with_key(more, "hardware", "threads", straight_threads + 1)
    try:
        with caplog.at_level(logging.WARNING):
            train_stage(SFT, more, **common, output=tmp_path / "killed")
        assert torch.get_num_threads() == straight_threads
    finally:
        torch.set_num_threads(straight_threads)
    assert "continuing from" in caplog.text
    straight = load_file(tmp_path / "straight" / "model.safetensors")
    for name, value in load_file(tmp_path / "killed" / "model.safetensors").items():
        assert torch.equal(value, straight[name]), name
    assert [entry["step"] for entry in read_history(tmp_path / "killed")] == [1, 2, 3, 4, 5]
    assert not list(tmp_path.glob(".killed.*"))
