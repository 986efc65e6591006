"""Which questions a step learns from: those whose completions earn different amounts."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from siqvl.training.loop.finite import NonFinite
from siqvl.training.rewards.dynamic_sampling import Group, draw_groups

MIXED, RIGHT, WRONG = [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]


class Asked:
    """Answers questions by a list of what their completions earn."""

    def __init__(self, rewards: list[list[float]]) -> None:
        self.rewards = rewards
        self.rounds: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[Group]:
        self.rounds.append(list(items))
        return [Group(item, [[item], [item, item]], self.rewards[item]) for item in items]


@pytest.mark.parametrize(
    ("rewards", "rounds", "kept"),
    [
        # enough at once: nothing more is asked
        ([MIXED, MIXED, RIGHT, MIXED], [[0, 1]], [0, 1]),
        # two rounds, of which the first three that differ are taken, and the fourth is not
        ([RIGHT, MIXED, WRONG, MIXED, MIXED, MIXED], [[0, 1, 2], [3, 4, 5]], [1, 3, 4]),
        # too few: the first of the others fill the step up, and all stay in their order
        ([RIGHT, WRONG, WRONG, MIXED], [[0, 1], [2, 3]], [0, 3]),
        ([RIGHT, WRONG, RIGHT, RIGHT], [[0, 1], [2, 3]], [0, 1]),
        # the last round may have fewer questions
        ([RIGHT, WRONG, MIXED], [[0, 1], [2]], [0, 2]),
    ],
)
def test_questions_are_asked_until_enough_differ(
    rewards: list[list[float]], rounds: list[list[int]], kept: list[int]
) -> None:
    answers = Asked(rewards)
    draw = draw_groups(range(len(rewards)), len(kept), answers)
    assert answers.rounds == rounds
    assert [group.item for group in draw.kept] == kept
    assert [group.item for group in draw.written] == [item for asked in rounds for item in asked]


def test_rewards_that_differ_by_rounding_alone_are_equal() -> None:
    assert not Group(0, [[1], [2]], [0.1 + 0.2, 0.3]).differs
    assert Group(0, [[1], [2]], [0.3, 0.29]).differs


def test_figures_are_of_all_that_was_written_and_not_of_what_was_kept() -> None:
    draw = draw_groups(range(4), 2, Asked([RIGHT, MIXED, WRONG, MIXED]))
    assert draw.figures() == {
        "drawn/questions": 4.0,
        "drawn/differing": 0.5,
        "drawn/reward": 0.5,
    }


#: Some groups are cut off throughout or end soon, and so earn the same; others do not.
FREE = 9
FIGURES = {
    "sampling_temperature": 1.3,
    "max_new_tokens": 16,
    "free_tokens": FREE,
    "rewards": {"length": 1.0},
}


def lengths(trainer, rows: int) -> torch.Tensor:
    return trainer._batches[0]["completion_mask"].sum(1).view(rows, -1)


def test_a_step_learns_from_the_first_questions_of_its_rounds_that_differ(
    small, tmp_path: Path
) -> None:
    """Against each question asked by itself, in a run that takes questions as they come."""
    one = small.trainer(tmp_path / "one", batch_size=24, max_steps=1, **FIGURES)  # six questions
    one._place = (0, 0)
    one.model.train()
    one._prepare_inputs(one.questions[0])
    order = [row["item"] for row in one.questions[0]]
    different = lengths(one, 6).clamp(min=FREE).float().std(1) > 0
    expected = [item for item, differs in zip(order, different, strict=True) if differs][:2]
    assert len(expected) == 2
    assert expected != order[:2]  # or nothing was chosen

    chosen = small.trainer(
        tmp_path / "chosen", batch_size=8, sampling_rounds=3, max_steps=1, **FIGURES
    )
    chosen._place = (0, 0)
    chosen.model.train()
    assert [row["item"] for row in chosen.questions[0]] == order
    inputs = chosen._prepare_inputs(chosen.questions[0])
    assert list(dict.fromkeys(inputs["items"].tolist())) == expected
    assert (inputs["advantages"].view(2, 4).abs().amax(1) > 0).all()
    for item in expected:
        rows = [number for number, one in enumerate(order) for _ in range(4) if one == item]
        assert rows
        ours = inputs["completion_ids"][inputs["items"] == item]
        theirs = one._batches[0]["completion_ids"][one._batches[0]["items"] == item]
        width = min(ours.shape[1], theirs.shape[1])
        assert torch.equal(ours[:, :width], theirs[:, :width])
    history = chosen._metrics["train"]
    assert 4 <= history["drawn/questions"][0] <= 6
    assert history["frac_reward_zero_std"] == [0.0]


def test_a_loss_that_is_not_finite_names_the_questions_that_were_chosen(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small.trainer(tmp_path, batch_size=8, sampling_rounds=3, max_steps=1, **FIGURES)
    original = type(trainer)._compute_loss
    chosen = []

    def bad(self, model, inputs):
        chosen.extend(dict.fromkeys(inputs["items"].tolist()))
        return original(self, model, inputs) * float("nan")

    monkeypatch.setattr(type(trainer), "_compute_loss", bad)
    rows = trainer.loader.dataset
    with pytest.raises(NonFinite) as caught:
        trainer.train()
    assert f"in rows {', '.join(rows.row_id(item) for item in chosen)} of" in str(caught.value)


def test_questions_that_all_earn_the_same_still_make_a_step(small, tmp_path: Path) -> None:
    """Nothing is right, so that every round is asked, and nothing is learned."""
    figures = {"rewards": {"answer": 1.0}, "free_tokens": None, "answer_marker": "nowhere"}
    trainer = small.trainer(tmp_path, sampling_rounds=2, max_steps=1, **figures)
    before = {name: one.clone() for name, one in trainer.model.state_dict().items()}
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert entry["drawn/questions"] == 4.0
    assert entry["drawn/differing"] == 0.0
    assert entry["grad_norm"] == 0.0
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name
