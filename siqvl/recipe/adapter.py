"""The section `adapter` of a training stage: low-rank adapters on the language model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from siqvl.recipe.section import Section

#: Linear layers of the language model that an adapter may be on; `all-linear` is all of them.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL_LINEAR = "all-linear"


class Adapter(Section):
    """LoRA (Hu et al. 2021, arXiv:2106.09685), or QLoRA (Dettmers et al. 2023, arXiv:2305.14314).

    A stage that has one and lists `language_model` under `trainable` freezes that part's weights,
    and trains alpha / rank * B A beside them. What else it lists is trained in full.
    """

    rank: PositiveInt = Field(16, description="of the two matrices A and B")
    alpha: PositiveFloat = Field(32.0, description="what they add is scaled by alpha / rank")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of a layer's inputs that its adapter does not see"
    )
    targets: str | list[str] = Field(
        ALL_LINEAR, description="linear layers of the language model: all-linear, or their names"
    )
    quantize: Literal["none", "int8", "nf4"] = Field(
        "none", description="how the frozen weights of these layers are kept; a CUDA GPU alone"
    )

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the names of the layers that `targets` means."""
        return TARGETS if isinstance(self.targets, str) else tuple(self.targets)

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: str | list[str]) -> str | list[str]:
        known = f"{ALL_LINEAR}, or a list of {', '.join(TARGETS)}"
        if isinstance(targets, str):
            if targets != ALL_LINEAR:
                raise ValueError(f"targets should be {known}")
            return targets
        if not targets or len(set(targets)) < len(targets) or set(targets) - set(TARGETS):
            raise ValueError(f"targets should be {known}, each of them once")
        return targets
