"""A recipe that samples."""

from collections.abc import Callable
from typing import Any

import pytest

from siqvl.recipe import Recipe

SAMPLED = {
    "source": {"kind": "shapes", "subsets": ["vqa"], "max_samples": 40},
    "samples": 6,
    "max_new_tokens": 6,
    "max_pairs": 2,
    "weight": 0.5,
}
PAIRS = {
    "name": "pairs",
    "source": {"kind": "shapes", "subsets": ["vqa"], "split": "test", "max_samples": 30},
    "method": "preference",
    "sampled": True,
    "stages": ["dpo"],
}


@pytest.fixture(scope="session")
def sampling_recipe(trained) -> Callable[..., Recipe]:
    """The recipe of `trained`, with sampled pairs and a benchmark of them."""

    def build(*, benchmark: bool = True, **settings: Any) -> Recipe:
        content = trained.recipe.model_dump(mode="json")
        content["stages"]["dpo"]["sampled"] = SAMPLED | settings
        if benchmark:
            content["evaluation"]["benchmarks"].append(PAIRS)
        return Recipe.model_validate(content)

    return build
