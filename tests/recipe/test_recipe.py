"""Recipes: every shipped one loads, and a wrong key is one clear line."""

from pathlib import Path

import pytest
import yaml

from siqvl.errors import UserError
from siqvl.recipe import (
    Benchmark,
    DataPrep,
    Distributed,
    DPOStage,
    Evaluation,
    Model,
    Recipe,
    Serving,
    SFTStage,
    Stage,
    Tracking,
)
from siqvl.recipe.compute import Compute, Request
from siqvl.recipe.section import Section

RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = sorted(RECIPES.glob("*.yaml"))
ALL_PARTS = ["vision_tower", "projector", "language_model"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_load_and_round_trip(path: Path) -> None:
    recipe = Recipe.load(path)
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    assert again.hash() == recipe.hash()


def tiny(**changes: object) -> dict:
    """The tiny recipe as a mapping, with dotted keys changed."""
    content = yaml.safe_load((RECIPES / "tiny.yaml").read_text())
    for key, value in changes.items():
        *sections, last = key.split("__")
        target = content
        for section in sections:
            target = target[section]
        target[last] = value
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedd": 1}, "recipe: unknown key `sedd`, did you mean `seed`?"),
        (
            {"stages__vqa_sft__learning_rat": 1e-5},
            "recipe: unknown key `stages.vqa_sft.learning_rat`, did you mean `learning_rate`?",
        ),
        (
            {"evaluation__batchsize": 3},
            "recipe: unknown key `evaluation.batchsize`, did you mean `batch_size`?",
        ),
        (
            {"stages__dpo__max_steps": 0},
            "recipe: `stages.dpo.max_steps`: Input should be greater than 0 (got 0)",
        ),
        (
            {"stages__dpo__trainable": ["projektor"]},
            "recipe: `stages.dpo.trainable.0`: Input should be 'vision_tower', 'projector' or "
            "'language_model' (got 'projektor')",
        ),
    ],
)
def test_a_wrong_key_is_named_in_one_line(change: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe.model_validate(tiny(**change))
    assert caught.value.message == message
    assert "\n" not in caught.value.message


def test_a_misspelt_key_inside_a_list_is_named() -> None:
    content = tiny()
    content["stages"]["vqa_sft"]["sources"][0]["max_sample"] = 5
    with pytest.raises(
        UserError, match=r"`stages.vqa_sft.sources.0.max_sample`, did you mean `max_samples`"
    ):
        Recipe.model_validate(content)


def test_files_that_are_no_recipe_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.yaml does not exist"):
        Recipe.load(tmp_path / "missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML"):
        Recipe.load(broken)
    broken.write_text("- just\n- a list\n")
    with pytest.raises(UserError, match="holds no recipe"):
        Recipe.load(broken)


def test_two_benchmarks_of_one_name_are_refused() -> None:
    content = tiny()
    content["evaluation"]["benchmarks"][1]["name"] = content["evaluation"]["benchmarks"][0]["name"]
    with pytest.raises(UserError, match="share a name"):
        Recipe.model_validate(content)


def test_hash_ignores_order_but_not_values() -> None:
    recipe = Recipe.model_validate(tiny())
    reordered = dict(reversed(tiny().items()))
    assert Recipe.model_validate(reordered).hash() == recipe.hash()
    assert Recipe.model_validate(tiny(seed=1)).hash() != recipe.hash()


@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "qwen2.5-1.5b"])
def test_full_size_recipes_hold_the_published_figures(name: str) -> None:
    recipe = Recipe.load(RECIPES / f"{name}.yaml")
    align = recipe.stage(Stage.PROJECTOR_ALIGNMENT)
    assert align.trainable == ["projector"]
    assert (align.learning_rate, align.max_steps) == (1e-3, 1000)
    assert (align.batching, align.max_length, align.precision) == ("packed", 2048, "bf16")
    assert len(align.sources[0].subsets) == 10
    for stage in (Stage.VQA_SFT, Stage.COT_SFT):
        assert 1e-5 <= recipe.stage(stage).learning_rate <= 2e-5
        assert recipe.stage(stage).trainable == ["projector", "language_model"]


def test_a_recipe_holds_only_what_differs_from_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(RECIPES.parent)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: recipes/tiny.yaml\n"
        "name: mine\n"
        "stages: {vqa_sft: {sources: [{kind: table, path: mine.csv}], max_steps: 7}}\n"
    )
    mine, base = Recipe.load(path), Recipe.load(RECIPES / "tiny.yaml")
    assert [source.path for source in mine.stages.vqa_sft.sources] == ["mine.csv"]
    assert mine.stages.vqa_sft.max_steps == 7
    assert mine.stages.vqa_sft.learning_rate == base.stages.vqa_sft.learning_rate
    assert mine.stages.cot_sft == base.stages.cot_sft
    assert Recipe.model_validate(yaml.safe_load(path.read_text())) == mine  # as pyflyte reads it


def test_a_base_that_is_missing_or_its_own_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lost.yaml").write_text("base: nowhere.yaml\n")
    with pytest.raises(UserError, match=r"recipe file nowhere.yaml does not exist"):
        Recipe.load("lost.yaml")
    Path("one.yaml").write_text("base: two.yaml\n")
    Path("two.yaml").write_text("base: one.yaml\n")
    with pytest.raises(UserError, match=r"two.yaml -> one.yaml -> two.yaml"):
        Recipe.load("one.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages__vqa_sft__epochs": 2}, "give exactly one of `max_steps` and `epochs`"),
        ({"stages__vqa_sft__max_steps": None}, "give exactly one of `max_steps` and `epochs`"),
        ({"stages__vqa_sft__pack_length": 8}, "pack_length 8 is below max_length 512"),
        ({"stages__vqa_sft__pack_images": 4}, "pack_images needs a `max_images`"),
        ({"stages__dpo__loss": {"sigmoid": 0.0}}, "greater than 0"),
        ({"stages__dpo__loss": {}}, "at least 1 item"),
        ({"stages__dpo__loss": {"simpo": 1.0}}, "'sigmoid', 'ipo', 'hinge'"),
        (
            {"stages__vqa_sft__learning_rates": {"vision_tower": 1e-6}},
            "learning_rates has ['vision_tower'], which `trainable` has not",
        ),
        (
            {"stages__vqa_sft__cached_features": True, "stages__vqa_sft__trainable": ALL_PARTS},
            "cached_features needs a frozen vision_tower",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_named(change: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe.model_validate(tiny(**change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "section",
    [
        DataPrep,
        Model,
        SFTStage,
        DPOStage,
        Benchmark,
        Evaluation,
        Tracking,
        Serving,
        Distributed,
        Compute,
        Request,
        Recipe,
    ],
)
def test_the_tiny_recipe_documents_every_key(section: type[Section]) -> None:
    text = (RECIPES / "tiny.yaml").read_text()
    assert [key for key in section.model_fields if f"{key}:" not in text] == []


def test_a_section_that_contradicts_itself_is_one_sentence() -> None:
    content = Recipe.load(RECIPES / "tiny.yaml").model_dump(mode="json")
    content["evaluation"]["champion_benchmark"] = "nope"
    with pytest.raises(UserError) as caught:
        Recipe.model_validate(content)
    assert caught.value.message == (
        "recipe: `evaluation`: champion_benchmark: no benchmark `nope` after dpo"
    )
