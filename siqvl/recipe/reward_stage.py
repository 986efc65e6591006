"""The section `stages.rlvr`: learning from rewards that a scorer gives (GRPO)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from siqvl.recipe.training_stages import ScorerName, SFTStage

Reward = Literal["answer", "format", "length"]
#: Keys of the other stages that say nothing here, where batches are made of completions.
IDLE = ("pack_length", "pack_images", "learn_turns", "head_chunk", "prefetch", "loader_workers")
#: Keys that this stage does not support.
UNSUPPORTED = ("adapter",)


class RewardStage(SFTStage):
    """The hyperparameters of learning from verifiable rewards, by GRPO (arXiv:2402.03300).

    `sources` have questions with their answers. In every optimizer step the model writes a group of
    completions for each of some questions, and learns from how much more or less than its group
    each of them earns.
    """

    LATER = (*SFTStage.LATER, "sampling_rounds")

    batching: Literal["padded"] = "padded"
    batch_size: PositiveInt = Field(64, description="completions a device and batch")
    prompt_suffix: str = Field("", description="appended to every question")
    answer_marker: str | None = Field(
        None, min_length=1, description="judge the text after the last marker (chain of thought)"
    )
    scorer: ScorerName = "exact_match"
    group_size: int = Field(8, ge=2, description="completions of every question")
    sampling_rounds: PositiveInt = Field(
        1,
        description="times that a step may ask as many questions as it learns from, until it has "
        "as many whose completions differ in what they earn; the others teach nothing",
    )
    sampling_temperature: float = Field(1.0, gt=0)
    max_new_tokens: PositiveInt = 256
    places: PositiveInt = Field(256, description="completions written side by side")
    rewards: dict[Reward, NonNegativeFloat] = Field(
        {"answer": 1.0},
        min_length=1,
        description="weights of what a completion earns: answer, what the scorer gives; format, 1 "
        "for steps, one marker and an answer; length, from 0 down to -1",
    )
    free_tokens: PositiveInt | None = Field(
        None, description="tokens of a completion that `length` does not count against it"
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="what the rewards above the group's mean are divided by: a deviation"
    )
    loss: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = Field(
        "dapo", description="how the losses of tokens become one, by TRL's names"
    )
    beta: float = Field(0.0, ge=0, description="weight of the KL term towards the first weights")

    @model_validator(mode="after")
    def _earns(self) -> RewardStage:
        if self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of group_size {self.group_size}: a "
                "batch has whole groups"
            )
        if not any(self.rewards.values()):
            raise ValueError("rewards: no weight is above 0, so that nothing would be learned")
        if "format" in self.rewards and self.answer_marker is None:
            raise ValueError("rewards: `format` looks for the answer_marker, which is null")
        free = self.free_tokens
        if ("length" in self.rewards) != (free is not None):
            raise ValueError("free_tokens and the reward `length` need each other")
        if free is not None and free >= self.max_new_tokens:
            raise ValueError(
                f"free_tokens {free} is not below max_new_tokens {self.max_new_tokens}"
            )
        if "vision_tower" in self.trainable:
            raise ValueError("stage `rlvr` leaves the vision_tower as it is: take it out")
        fields = type(self).model_fields
        others = [key for key in (*IDLE, *UNSUPPORTED) if key in fields]
        if idle := [key for key in others if getattr(self, key) != fields[key].default]:
            raise ValueError(f"stage `rlvr` has no use for {', '.join(idle)}: leave it out")
        return self
