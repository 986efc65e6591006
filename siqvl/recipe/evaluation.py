"""The section `evaluation`: benchmarks that score checkpoints, and gates over their scores."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from siqvl.recipe.controls import Control, control_of
from siqvl.recipe.named_benchmarks import named
from siqvl.recipe.section import FOLDER_NAME, Section
from siqvl.recipe.source import Source
from siqvl.recipe.training_stages import DEPARTING, PIPELINE, ScorerName, Stage

#: Who answers a benchmark: the model; the model blind, its picture left out or swapped for that of
#: another question; and three baselines that need no model.
Player = Literal[
    "picture", "no_picture", "other_picture", "majority", "question_only", "random_choice"
]
Blind = Literal["no_picture", "other_picture"]


class Benchmark(Section):
    """One evaluation set and how its questions are asked and scored.

    `benchmark: mmstar` stands for the keys of that name in `named_benchmarks.yaml`, but for those
    given beside it; a recipe is stored with what it stands for.
    """

    LATER = ("held_out", "official", "letter_suffix")

    name: str = Field(pattern=FOLDER_NAME.replace("A-Z", ""), max_length=100)
    source: Source
    training: Source | None = Field(
        None, description="the training questions, from which `majority` and `question_only` learn"
    )
    held_out: bool = Field(
        False, description="it shows what no training picture does, and stands apart in the report"
    )
    stages: list[Stage] = Field(list(PIPELINE), description="scored after these stages")
    method: Literal["generation", "likelihood", "preference"] = Field(
        "generation",
        description="generation: what the model writes; likelihood: the option whose letter is "
        "likeliest; preference: whether the chosen completion is likelier than the rejected one",
    )
    scorer: ScorerName = "exact_match"
    official: bool = Field(
        False, description="score by the official script's rule where the scorer departs from it"
    )
    blind: list[Blind] = Field(
        ["no_picture", "other_picture"], description="asked again without the picture, with another"
    )
    letters: bool = Field(False, description="list the options as A, B, … below the question")
    sampled: bool = Field(
        False,
        description="for preference: pairs that the checkpoint DPO starts from writes itself, as "
        "stages.dpo.sampled says, about the questions of `source`",
    )
    letter_suffix: str | None = Field(
        None,
        description="appended to a question with options in place of `prompt_suffix` and of the "
        "request for a letter; null = these",
    )
    prompt_suffix: str = Field("", description="appended to every question")
    answer_marker: str | None = Field(
        None, min_length=1, description="score the text after the last marker (chain of thought)"
    )
    max_new_tokens: PositiveInt = 16

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named(value) if isinstance(value, dict) and "benchmark" in value else value

    @model_validator(mode="after")
    def _consistent(self) -> Benchmark:
        if self.official and self.scorer not in DEPARTING:
            raise ValueError(
                f"`official` is for scorers {', '.join(DEPARTING)}; `{self.scorer}` has one rule: "
                "set `official: false`"
            )
        if self.letter_suffix is not None and not self.letters:
            raise ValueError(
                "`letter_suffix` is appended where letters are: set `letters: true`, or "
                "`letter_suffix: null`"
            )
        if self.method == "likelihood" and not self.letters:
            raise ValueError("method likelihood compares letters: set `letters: true`")
        if self.sampled and self.method != "preference":
            raise ValueError("`sampled` is for method preference")
        return self

    def lacks(self, player: Player) -> str:
        """Return what a player needs to answer this benchmark that it does not have, or nothing."""
        if player in ("no_picture", "other_picture"):
            return "" if player in self.blind else f"`{player}` in its `blind`"
        if player != "picture" and self.method == "preference":
            return "questions: nobody can guess pairs"
        return "`training`" if player == "question_only" and self.training is None else ""


class Rival(Section):
    """What a gate compares with; a key that is left out has the value of the gate's own side."""

    LATER = ("likelihood_control",)

    player: Player = "picture"
    stage: Stage | None = None
    benchmark: str | None = Field(None, description="another benchmark about the same questions")
    random_tower: bool = Field(False, description="the score of the control of stage 1")
    likelihood_control: bool = Field(False, description="the score of the control of stage 4")


class Gate(Section):
    """A claim about a stage, tested on paired differences; one that fails stops promotion."""

    LATER = ("likelihood_control",)

    claim: str = Field(description="the sentence people read")
    stage: Stage
    benchmark: str
    random_tower: bool = Field(False, description="the claim is about the control of stage 1")
    likelihood_control: bool = Field(False, description="the claim is about the control of stage 4")
    over: Rival
    above: float | None = Field(
        0.0, description="the whole 95 % interval of the difference lies above this share"
    )
    below: float | None = Field(None, description="… and below this one")

    @model_validator(mode="after")
    def _consistent(self) -> Gate:
        if self.above is None and self.below is None:
            raise ValueError(f"gate `{self.claim}` tests nothing: set `above`, `below` or both")
        self._check_bounds(
            -1.0 if self.above is None else self.above, 1.0 if self.below is None else self.below
        )
        over = self.over
        stage, benchmark = over.stage or self.stage, over.benchmark or self.benchmark
        own = (control_of(self), "picture", self.stage, self.benchmark)
        if own == (control_of(over), over.player, stage, benchmark):
            raise ValueError(f"gate `{self.claim}` compares a score with itself")
        for side, at in ((self, self.stage), (over, stage)):
            for control in Control:
                if getattr(side, control.value) and at is not control.stage:
                    raise ValueError(
                        f"gate `{self.claim}`: the control `{control}` is trained in stage "
                        f"`{control.stage}` alone"
                    )
        return self

    def _check_bounds(self, above: float, below: float) -> None:
        """Scores are shares, so that their difference lies from -1 to 1."""
        if above >= 1 or below <= -1:
            raise ValueError(
                f"gate `{self.claim}` can never pass: a difference of two shares is at most 1 and "
                "at least -1 (one point is 0.01)"
            )
        if above >= below:
            raise ValueError(
                f"gate `{self.claim}` can never pass: nothing lies above {above:g} and below "
                f"{below:g}"
            )


class Evaluation(Section):
    """How every checkpoint is scored, and what must hold before one is promoted."""

    LATER = ("precision", "cached_features", "likelihood_control")

    benchmarks: list[Benchmark] = Field(min_length=1)
    batch_size: PositiveInt = 32
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="of answers, and of those that become pairs: auto is bf16 on a GPU where the "
        "stage trained in it, else fp32",
    )
    cached_features: bool = Field(
        False,
        description="keep the tower's features of benchmarks in `features_dir`, in the answers' "
        "precision, for the stages and runs to come",
    )
    shards: PositiveInt = Field(1, description="Flyte tasks that answer side by side")
    random_tower: bool = Field(
        False, description="train and score a control: stage 1 behind a tower of random weights"
    )
    likelihood_control: bool = Field(
        False,
        description="train and score a control: stage 4 on the same pairs and steps by the "
        "likelihood of the chosen completions alone",
    )
    gates: list[Gate] = Field([], description="what must hold before a checkpoint is promoted")
    champion_benchmark: str | None = Field(
        None,
        description="on which a new model has to beat the registry's champion, question by "
        "question, to take its place; null: passed gates are enough",
    )
    report_pictures: PositiveInt = Field(24, description="sample pictures in the report")

    @property
    def controls(self) -> list[Control]:
        """Return the controls that are trained and scored."""
        return [control for control in Control if getattr(self, control.value)]

    @model_validator(mode="after")
    def _consistent(self) -> Evaluation:
        by_name = {benchmark.name: benchmark for benchmark in self.benchmarks}
        if len(by_name) < len(self.benchmarks):
            names = [benchmark.name for benchmark in self.benchmarks]
            raise ValueError(f"two benchmarks share a name: {names}")
        for gate in self.gates:
            for name, stage in (
                (gate.benchmark, gate.stage),
                (gate.over.benchmark or gate.benchmark, gate.over.stage or gate.stage),
            ):
                if name not in by_name or stage not in by_name[name].stages:
                    raise ValueError(f"gate `{gate.claim}`: no benchmark `{name}` after {stage}")
            for control in Control:
                is_named = getattr(gate, control.value) or getattr(gate.over, control.value)
                if is_named and control not in self.controls:
                    raise ValueError(f"gate `{gate.claim}` needs `{control}: true`")
            rival = by_name[gate.over.benchmark or gate.benchmark]
            if lacking := rival.lacks(gate.over.player):
                raise ValueError(
                    f"gate `{gate.claim}` can never pass: benchmark `{rival.name}` has no {lacking}"
                )
        if self.champion_benchmark is not None:
            self._check_champion_benchmark(self.champion_benchmark)
        return self

    def _check_champion_benchmark(self, name: str) -> None:
        last = PIPELINE[-1]
        found = {benchmark.name: benchmark for benchmark in self.benchmarks}.get(name)
        if found is None or last not in found.stages:
            raise ValueError(f"champion_benchmark: no benchmark `{name}` after {last}")
        if found.method == "preference":
            raise ValueError(
                f"champion_benchmark: nobody can guess the pairs of `{name}`, so that a first "
                "model had nothing to beat; name one whose questions are answered"
            )
