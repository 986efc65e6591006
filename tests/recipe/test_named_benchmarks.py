"""`benchmark: <name>` in a recipe."""

import pytest

from siqvl.errors import UserError
from siqvl.recipe import Benchmark, Recipe
from siqvl.recipe.named_benchmarks import benchmarks
from tests.small_recipe import ROOT


def recipe(*listed: dict) -> Recipe:
    content = Recipe.load(ROOT / "recipes" / "tiny.yaml").model_dump(mode="json")
    content["evaluation"] |= {"benchmarks": list(listed), "gates": [], "champion_benchmark": None}
    return Recipe.model_validate(content)


@pytest.mark.parametrize("name", benchmarks())
def test_a_name_stands_for_keys_and_is_not_stored(name: str) -> None:
    found = Benchmark.model_validate({"benchmark": name})
    assert found == Benchmark.model_validate({"name": name, **benchmarks()[name]})
    assert found.name == name
    assert found.source.revision is None  # pinned when a preparation starts
    assert Benchmark.model_validate(found.model_dump(mode="json")) == found


def test_what_is_given_beside_the_name_wins() -> None:
    given = {"benchmark": "docvqa", "name": "d", "official": False, "source": {"max_samples": 9}}
    found = Benchmark.model_validate(given)
    own = Benchmark.model_validate({"benchmark": "docvqa"})
    assert (found.name, found.official, own.official) == ("d", False, True)
    assert found.source == own.source.model_copy(update={"max_samples": 9})


def test_a_source_of_another_kind_is_taken_whole() -> None:
    other = {"kind": "vqav2", "path": "hub/vqav2", "split": "validation"}
    found = Benchmark.model_validate({"benchmark": "vqav2", "source": other})
    assert found.source.columns == {}
    assert found.scorer == "vqav2"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"benchmark": "mmstr"}, "no published benchmark is called 'mmstr'; did you mean `mmstar`"),
        ({"benchmark": "MMStar"}, "is called 'MMStar'; did you mean `mmstar`"),
        ({"benchmark": "docvqa", "scorer": "exact_match"}, "one rule: set `official: false`"),
        ({"benchmark": "mmstar", "letters": False}, "or `letter_suffix: null`"),
        ({"benchmark": 3}, "no published benchmark is called 3; known are mmstar, mmmu, pope,"),
        ({"benchmark": "mme", "scorrer": "mme"}, "did you mean `scorer`"),
        ({"benchmark": "mme", "official": True}, "scorers vqav2, gqa, anls; `mme` has one rule"),
        ({"benchmark": "mme", "letter_suffix": ""}, "set `letters: true`"),
    ],
)
def test_what_is_wrong_is_one_sentence(given: dict, said: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe(given)
    assert caught.value.message.startswith("recipe: ")
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_two_of_one_name_are_told_apart_by_their_own() -> None:
    with pytest.raises(UserError, match="two benchmarks share a name"):
        recipe({"benchmark": "mme"}, {"benchmark": "mme"})
    assert len(recipe({"benchmark": "mme"}, {"benchmark": "mme", "name": "b"}).hash()) == 64
