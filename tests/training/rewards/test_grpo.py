"""TRL's trainer as ours runs it: its loss by hand, its own way with pictures, and resuming."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trl import GRPOTrainer

from siqvl.checkpoint import read_card, read_history
from siqvl.errors import UserError
from siqvl.recipe import Stage
from siqvl.training.resuming import Provenance
from siqvl.training.rewards import grpo
from siqvl.training.stage import train_stage
from tests.small_checkpoint import small_checkpoint
from tests.training.stopping import stopped_after


def step(trainer) -> dict:
    """The completions of the first step, judged."""
    trainer._place = (0, 0)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # as the loop would set it
    return trainer._prepare_inputs(trainer.questions[0])


def gradients(trainer, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    trainer.model.zero_grad()
    loss.backward()
    named = trainer.model.named_parameters()
    return {name: one.grad.clone() for name, one in named if one.grad is not None}


def assert_close(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        scale = expected[name].abs().max().clamp(min=1e-6)
        assert (value - expected[name]).abs().max() < 1e-4 * scale, name


def by_hand(trainer, inputs: dict) -> torch.Tensor:
    """-sum A log p over all tokens of all completions, each by itself, without padding."""
    total, count = torch.zeros(()), 0
    temperature = trainer.stage.sampling_temperature
    for row, item in enumerate(inputs["items"].tolist()):
        ids = inputs["completion_ids"][row][inputs["completion_mask"][row].bool()]
        asked = trainer.loader.dataset[item]
        prompt = torch.tensor(asked["input_ids"])
        pixels = trainer.processing_class.image_processor(
            images=asked["images"], return_tensors="pt"
        )["pixel_values"]
        scores = trainer.model(input_ids=torch.cat([prompt, ids])[None], pixel_values=pixels)
        logits = scores.logits[0, len(prompt) - 1 : -1].float() / temperature
        log_probs = logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        total = total - inputs["advantages"][row] * log_probs.sum()
        count += len(ids)
    return total / count


def right(trainer, inputs: dict) -> torch.Tensor:
    """1 where the words after the marker are the answer of the question."""
    found = []
    for item, ids in zip(inputs["items"].tolist(), inputs["completion_ids"], strict=True):
        (answer,) = trainer.loader.dataset.stored(item, ("answers",))["answers"]
        text = trainer.processing_class.tokenizer.decode(ids, skip_special_tokens=True)
        found.append(float(text.rpartition("Answer: ")[2].strip() == answer))
    return torch.tensor(found)


def test_advantages_and_gradient_are_those_worked_out_by_hand(small, tmp_path: Path) -> None:
    trainer = small.trainer(tmp_path)
    inputs = step(trainer)
    lengths = inputs["completion_mask"].sum(1)
    ended = torch.isin(inputs["completion_ids"], torch.tensor(trainer._ends)).any(1)
    assert bool(ended.any())  # completions of several lengths
    rewards = -(lengths - 1) / 23 + right(trainer, inputs)
    groups = rewards.view(2, 4)
    mean, deviation = groups.mean(1, keepdim=True), groups.std(1, keepdim=True)  # of n - 1
    expected = ((groups - mean) / (deviation + 1e-4)).flatten()
    assert inputs["advantages"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)

    loss = trainer.compute_loss(trainer.model, inputs)
    # of the policy that wrote: every ratio is 1, so that only the advantages are left of the value
    value = -(expected * lengths).sum() / lengths.sum()
    assert loss.item() == pytest.approx(value.item(), abs=1e-5)
    assert_close(gradients(trainer, loss), gradients(trainer, by_hand(trainer, inputs)))


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_with_less_to_compute_it_is_trls_loss(small, tmp_path: Path, beta: float) -> None:
    """TRL's own method takes pixels, and every completion, padded to the longest."""
    trainer = small.trainer(tmp_path, beta=beta)
    inputs = step(trainer)
    again = inputs["completion_ids"][0], inputs["completion_mask"][0]
    inputs["completion_ids"][1], inputs["completion_mask"][1] = again  # an equal one
    if beta:
        with torch.no_grad():  # a policy that has moved away from the reference
            trainer.model.lm_head.weight.mul_(1.01)
    loss = trainer.compute_loss(trainer.model, inputs)
    ours = gradients(trainer, loss)
    own = dict(trainer._metrics["train"])
    trainer._metrics["train"].clear()

    def trls(model, input_ids, attention_mask, keep, compute_entropy=False, **_):
        rows = [trainer.loader.dataset[item] for item in trainer._of]
        pixels = trainer.processing_class.image_processor(
            images=[image for row in rows for image in row["images"]], return_tensors="pt"
        )["pixel_values"]
        return GRPOTrainer._get_per_token_logps_and_entropies(
            *(trainer, model, input_ids, attention_mask, keep),
            compute_entropy=compute_entropy,
            pixel_values=pixels,
            num_images=[1] * len(rows),
        )

    trainer._get_per_token_logps_and_entropies = trls
    theirs = trainer.compute_loss(trainer.model, inputs)
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-5)
    assert_close(ours, gradients(trainer, theirs))
    for name in ("entropy", *(["kl"] if beta else [])):
        assert own[name] == pytest.approx(trainer._metrics["train"][name], rel=1e-3)
    if beta:
        assert own["kl"][0] > 1e-6


def test_the_reference_is_the_first_weights_and_shares_the_tower(small, tmp_path: Path) -> None:
    trainer = small.trainer(tmp_path, beta=0.1)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    assert trainer.ref_model.model.vision_tower is trainer.model.model.vision_tower
    moved = 0
    for name, value in trainer.ref_model.state_dict().items():
        assert torch.equal(value, before[name]), name
        moved += not torch.equal(trainer.model.state_dict()[name], value)
    assert moved > 10


def test_completions_that_teach_nothing_have_no_gradient(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small.trainer(tmp_path)
    inputs = step(trainer)
    inputs["advantages"][:4] = 0.0
    computed = []
    original = grpo.RewardTrainer._of_rows

    def noted(self, model, ids, mask, keep, rows):
        computed.append((torch.is_grad_enabled(), set(rows)))
        return original(self, model, ids, mask, keep, rows)

    monkeypatch.setattr(grpo.RewardTrainer, "_of_rows", noted)
    loss = trainer.compute_loss(trainer.model, inputs)
    taught = {row for grad, rows in computed if grad for row in rows}
    assert taught
    assert taught <= {4, 5, 6, 7}
    assert_close(gradients(trainer, loss), gradients(trainer, by_hand(trainer, inputs)))


def test_a_step_in_which_nobody_earns_more_than_others_changes_nothing(
    small, tmp_path: Path
) -> None:
    trainer = small.trainer(tmp_path)
    inputs = step(trainer)
    inputs["advantages"].zero_()
    found = gradients(trainer, trainer.compute_loss(trainer.model, inputs))
    assert found
    assert all(not one.any() for one in found.values())


def test_accumulated_batches_learn_like_one_large_batch(small, tmp_path: Path) -> None:
    logs = []
    for name, division in (
        ("large", {"batch_size": 8, "accumulation": 1}),
        ("small", {"batch_size": 4, "accumulation": 2}),
    ):
        trainer = small.trainer(tmp_path / name, **division)
        trainer.train()
        logs.append([entry for entry in trainer.state.log_history if "loss" in entry])
    for large, accumulated in zip(*logs, strict=True):
        for key in ("loss", "grad_norm", "reward", "reward_std", "completions/mean_length"):
            assert accumulated[key] == pytest.approx(large[key], rel=2e-3, abs=2e-5), key


def test_the_stage_trains_and_says_what_it_earned(small, tmp_path: Path) -> None:
    rewards = {"answer": 1.0, "format": 0.1, "length": 0.1}
    recipe = small.recipe(tmp_path, cached_features=True, rewards=rewards)
    card = train_stage(
        Stage.RLVR, recipe, data=small.data, checkpoint=small.checkpoint, output=tmp_path / "out"
    )
    assert (card.stage, card.parent_stage) == (Stage.RLVR, Stage.COT_SFT)
    assert card.parent == read_card(small.checkpoint).hash
    history = read_history(tmp_path / "out")
    assert [entry["step"] for entry in history] == [1, 2]
    for name in (
        *("reward", "reward_std", "frac_reward_zero_std", "rewards/answer/mean"),
        *("rewards/format/std", "completions/mean_length", "completions/clipped_ratio"),
        *("entropy", "rollout_share", "completions_per_second"),
        *("drawn/questions", "drawn/differing", "drawn/reward"),
    ):
        assert name in history[0], name
    # the folder is one as any stage writes it: TRL leaves nothing of its own there
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names - {"history.json"} == {path.name for path in small.checkpoint.iterdir()} - {
        "history.json"
    }
    after, before = (
        json.loads((folder / "config.json").read_text())
        for folder in (tmp_path / "out", small.checkpoint)
    )
    assert after.pop("use_cache") is False  # as Hugging Face's Trainer leaves it in each stage
    assert after == before


@pytest.mark.integration
@pytest.mark.parametrize(
    "chosen", [{}, {"sampling_rounds": 2, "max_new_tokens": 16, "free_tokens": 9}]
)
def test_an_interrupted_stage_continues_to_the_same_weights(
    small, tmp_path: Path, chosen: dict
) -> None:
    """Over two passes of 12 questions, or more where a step asks further ones; lines of the
    history lie between the states."""
    figures = {"max_steps": 8, "saving_steps": 3, "logging_steps": 4, "beta": 0.05}
    recipe = small.recipe(tmp_path, **figures, **chosen)
    common = {"data": small.data, "checkpoint": small.checkpoint}
    train_stage(Stage.RLVR, recipe, **common, output=tmp_path / "straight")
    with stopped_after(7), pytest.raises(RuntimeError, match="killed"):
        train_stage(Stage.RLVR, recipe, **common, output=tmp_path / "resumed")
    (state,) = tmp_path.glob(".resumed.training-*/attempt-*/checkpoint-6")
    assert Provenance.of(state).libraries.keys() == {"torch", "transformers", "trl"}
    train_stage(Stage.RLVR, recipe, **common, output=tmp_path / "resumed")
    straight = load_file(tmp_path / "straight" / "model.safetensors")
    for name, value in load_file(tmp_path / "resumed" / "model.safetensors").items():
        assert torch.equal(value, straight[name]), name
    clocks = ("per_second", "step_time", "share", "gib")
    histories = [
        [
            {key: one for key, one in entry.items() if not key.endswith(clocks)}
            for entry in read_history(tmp_path / name)
        ]
        for name in ("straight", "resumed")
    ]
    assert histories[0] == histories[1]
    assert [entry["step"] for entry in histories[0]] == [1, 4, 8]


def test_a_checkpoint_of_another_stage_is_refused(small, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="continues from `cot_sft` or `dpo`"):
        train_stage(
            Stage.RLVR,
            small.recipe(tmp_path),
            data=small.data,
            checkpoint=small_checkpoint(tmp_path, stage=Stage.VQA_SFT),
            output=tmp_path / "out",
        )
