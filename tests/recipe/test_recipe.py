"""Recipes: every shipped one loads, and a wrong key is one clear line."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml

from siqvl.errors import UserError
from siqvl.recipe import (
    PIPELINE,
    Adapter,
    Benchmark,
    DataPrep,
    Distributed,
    DPOStage,
    Evaluation,
    Model,
    Recipe,
    RewardStage,
    Serving,
    SFTStage,
    Stage,
    Tracking,
)
from siqvl.recipe.compute import Compute, Request
from siqvl.recipe.section import Section

RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = sorted(RECIPES.glob("*.yaml"))
NAN, INFINITE = float("nan"), float("inf")
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


def test_an_answer_that_begins_with_thoughts_has_no_likeliest_letter() -> None:
    content = tiny(model__thinking=True)
    assert Recipe.model_validate(content).model.thinking
    content["evaluation"]["benchmarks"][0] |= {"method": "likelihood", "letters": True}
    with pytest.raises(UserError, match=r"model\.thinking is true, and benchmark `vqa` asks how"):
        Recipe.model_validate(content)
    content["model"]["thinking"] = False
    assert Recipe.model_validate(content)


def test_hash_ignores_order_but_not_values() -> None:
    recipe = Recipe.model_validate(tiny())
    reordered = dict(reversed(tiny().items()))
    assert Recipe.model_validate(reordered).hash() == recipe.hash()
    assert Recipe.model_validate(tiny(seed=1)).hash() != recipe.hash()


@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "qwen2.5-1.5b", "qwen3-0.6b", "qwen3-1.7b"])
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
    with pytest.raises(UserError, match=r"^lost.yaml: `base`: nowhere.yaml does not exist"):
        Recipe.load("lost.yaml")
    Path("one.yaml").write_text("base: ./two.yaml\n")
    Path("two.yaml").write_text("base: one.yaml\n")
    with pytest.raises(UserError, match=r"circle: one.yaml -> two.yaml -> one.yaml$"):
        Recipe.load("one.yaml")
    with pytest.raises(UserError, match=r"circle: two.yaml -> one.yaml -> two.yaml$"):
        Recipe.model_validate({"base": "two.yaml"})
    Path("self.yaml").write_text("base: ./self.yaml\n")
    with pytest.raises(UserError, match=r"^self.yaml: `base` goes round in a circle"):
        Recipe.load("self.yaml")


@pytest.mark.parametrize("base", ["null", "3", "[recipes/tiny.yaml]", "''", "true"])
def test_a_base_that_is_no_path_is_named(tmp_path: Path, base: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: {base}\n")
    with pytest.raises(UserError, match=r"mine.yaml: `base` should be the path of a recipe file"):
        Recipe.load(path)


def test_a_base_is_looked_for_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all paths of a recipe; one that lies beside the recipe is pointed at, not taken."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "base.yaml").write_text((RECIPES / "tiny.yaml").read_text())
    (tmp_path / "recipes" / "mine.yaml").write_text("base: base.yaml\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"where recipes/base.yaml is: write `base: recipes/base"):
        Recipe.load("recipes/mine.yaml")
    Path("base.yaml").write_text((RECIPES / "tiny.yaml").read_text() + "\nname: here\n")
    with pytest.raises(UserError, match=r"base.yaml: key `name` stands twice"):
        Recipe.load("recipes/mine.yaml")
    Path("base.yaml").write_text((RECIPES / "easyvqa.yaml").read_text())
    assert Recipe.load("recipes/mine.yaml") == Recipe.load(RECIPES / "easyvqa.yaml")


HUGE = 2**63


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "`seed`: Input should be greater than or equal to 0 (got -1)"),
        ({"seed": 2**32}, "`seed`: Input should be less than"),
        ({"name": ".."}, "`name`: "),
        ({"name": "a/b"}, "`name`: "),
        ({"name": "a" * 101}, "`name`: "),
        ({"name": ""}, "`name`: "),
        ({"stages__dpo__max_steps": 10**9 + 1}, "`stages.dpo.max_steps`: "),
        ({"stages__dpo__max_steps": None, "stages__dpo__epochs": 1e7}, "`stages.dpo.epochs`: "),
        ({"stages__dpo__batch_size": HUGE}, "`stages.dpo.batch_size`: Input should be an integer"),
        ({"stages__dpo__batch_size": str(HUGE)}, "`stages.dpo.batch_size`: Input should be an int"),
        ({"stages__dpo__batch_size": 16**5000}, "(got a number of thousands of digits)"),
        ({"compute__training__retries": 2**31}, "`compute.training.retries`: "),
        ({"compute__training": {"timeout_minutes": 10**12}}, "`compute.training.timeout_minutes`"),
        ({"tracking__patience_seconds": 1e12}, "`tracking.patience_seconds`: "),
        ({"stages__dpo__sampled__answer_marker": ""}, "`stages.dpo.sampled.answer_marker`: "),
        ({"name": "x" * 10_000}, "…"),
        ({1: 2}, "`1`: Keys should be strings"),
    ],
)
def test_what_no_task_can_take_is_named(change: dict, message: str) -> None:
    content = tiny() | change if 1 in change else tiny(**change)
    with pytest.raises(UserError) as caught:
        Recipe.model_validate(content)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("name", [".", "..", "...", "A", "a/b", "a" * 101])
def test_a_benchmark_is_named_as_a_folder_can_be(name: str) -> None:
    content = tiny()
    content["evaluation"]["benchmarks"][0]["name"] = name
    with pytest.raises(UserError, match=r"`evaluation.benchmarks.0.name`: "):
        Recipe.model_validate(content)


@pytest.mark.parametrize("marker", ["source", "training"])
@pytest.mark.parametrize("value", [NAN, INFINITE, [1, -INFINITE], HUGE, [0, -HUGE - 1]])
def test_a_condition_is_a_number_that_json_and_flyte_have(marker: str, value: object) -> None:
    content = tiny()
    content["evaluation"]["benchmarks"][0][marker]["where"] = {"column": value}
    with pytest.raises(UserError) as caught:
        Recipe.model_validate(content)
    said = caught.value.message
    assert said.startswith(f"recipe: `evaluation.benchmarks.0.{marker}.where.column`: Input should")
    assert ";" not in said


def _floats(section: type[Section], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Dotted keys of everything in a recipe that may be a float, found by the types themselves."""
    for key, field in section.model_fields.items():
        for part in _types(field.annotation):
            if part is float:
                yield (*at, key)
            elif isinstance(part, type) and issubclass(part, Section):
                yield from _floats(part, (*at, key))


def _types(annotation: object) -> Iterator[object]:
    yield annotation
    for part in get_args(annotation):
        yield from _types(part)


#: `where` may hold texts too; what it refuses is above.
FLOATS = sorted({".".join(path) for path in _floats(Recipe) if path[-1] != "where"})


def test_the_floats_of_a_recipe_are_found() -> None:
    known = {"stages.dpo.learning_rate", "stages.dpo.loss", "data.near", "evaluation.gates.above"}
    assert known <= set(FLOATS)
    assert len(FLOATS) > 50


@pytest.mark.parametrize("value", [NAN, -INFINITE, "1e999"])
@pytest.mark.parametrize("key", FLOATS)
def test_no_float_is_infinite(key: str, value: object) -> None:
    """JSON makes null of it, and a checkpoint that has been trained could not be read again."""
    content = Recipe.load(RECIPES / "rewards.yaml").model_dump(mode="json")
    *sections, last = key.split(".")
    target = content
    for section in sections:
        target = target[0] if isinstance(target, list) else target
        if target.get(section) is None:  # nothing, or a later key that is not used
            target[section] = {}
        target = target[section]
    target = target[0] if isinstance(target, list) else target
    mappings = {"loss": "sft", "learning_rates": "projector", "rewards": "answer"}
    target[last] = {mappings[last]: value} if last in mappings else value
    with pytest.raises(UserError) as caught:
        Recipe.model_validate(content)
    assert f".{last}".removeprefix(".") in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"above": 1}, "can never pass"),
        ({"above": 5}, "can never pass: a difference of two shares is at most 1"),
        ({"above": None, "below": -1}, "can never pass"),
        ({"above": 0.02, "below": 0.02}, "nothing lies above 0.02 and below 0.02"),
        ({"above": 0.2, "below": -0.2}, "nothing lies above 0.2 and below -0.2"),
        ({"below": -0.1}, "nothing lies above 0 and below -0.1"),
    ],
)
def test_a_gate_that_can_never_pass_is_refused(bounds: dict, message: str) -> None:
    content = tiny()
    content["evaluation"]["gates"][0] |= bounds
    with pytest.raises(UserError) as caught:
        Recipe.model_validate(content)
    assert caught.value.message.startswith("recipe: `evaluation.gates.0`: gate `Stage 1 makes")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("benchmark", "over", "lacking"),
    [
        ("multistep-direct", {"player": "no_picture"}, "no `no_picture` in its `blind`"),
        ("multistep-reasoned", {"player": "no_picture"}, "no `no_picture` in its `blind`"),
        ("preferences", {"player": "majority"}, "no questions: nobody can guess pairs"),
        ("untaught", {"player": "question_only"}, "no `training`"),
        ("multistep-reasoned", {"player": "other_picture"}, ""),
        ("multistep-reasoned", {"player": "random_choice"}, ""),
        ("multistep-reasoned", {"player": "no_picture", "benchmark": "vqa"}, ""),
        ("untaught", {"player": "majority"}, ""),
    ],
)
def test_a_gate_is_over_somebody_who_plays(benchmark: str, over: dict, lacking: str) -> None:
    content = tiny()
    content["evaluation"]["benchmarks"].append(
        {"name": "untaught", "source": {"kind": "shapes", "subsets": ["vqa"], "split": "test"}}
    )
    gate = {"claim": "x", "stage": "dpo", "benchmark": benchmark, "over": over}
    content["evaluation"]["gates"] = [gate]
    if not lacking:
        assert Recipe.model_validate(content)
        return
    with pytest.raises(UserError) as caught:
        Recipe.model_validate(content)
    assert caught.value.message == (
        f"recipe: `evaluation`: gate `x` can never pass: benchmark `{benchmark}` has {lacking}"
    )


@pytest.mark.parametrize(
    "bounds", [{"above": 0.99}, {"above": -1.01}, {"above": -0.01, "below": 0.01}, {"below": 5}]
)
def test_a_gate_that_may_pass_is_taken(bounds: dict) -> None:
    content = tiny()
    content["evaluation"]["gates"][0] |= bounds
    assert Recipe.model_validate(content)


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
    ("change", "message"),
    [
        ({"group_size": 1}, "`stages.rlvr.group_size`: Input should be greater than or equal to 2"),
        ({"group_size": 7}, "batch_size 128 is no multiple of group_size 7"),
        (
            {"rewards": {"format": 1.0}, "answer_marker": None},
            "`format` looks for the answer_marker, which is null",
        ),
        ({"free_tokens": 9}, "free_tokens and the reward `length` need each other"),
        # it is from 0 down to -1 already: a weight below 0 would pay for every token
        ({"rewards": {"length": -0.5}, "free_tokens": 9}, "greater than or equal to 0"),
        ({"rewards": {"answer": 0.0}}, "rewards: no weight is above 0"),
        ({"rewards": {"length": 1.0}}, "free_tokens and the reward `length` need each other"),
        ({"rewards": {"length": 1.0}, "free_tokens": 72}, "free_tokens 72 is not below max_new"),
        ({"rewards": {}}, "at least 1 item"),
        ({"rewards": {"style": 1.0}}, "'answer', 'format' or 'length' (got 'style')"),
        ({"trainable": ["vision_tower"], "cached_features": False}, "leaves the vision_tower as"),
        ({"pack_length": 600}, "stage `rlvr` has no use for pack_length"),
        ({"loss": "sigmoid"}, "'grpo', 'bnpo', 'dr_grpo' or 'dapo'"),
    ],
)
def test_a_stage_of_rewards_that_contradicts_itself_is_one_sentence(
    change: dict, message: str
) -> None:
    content = yaml.safe_load((RECIPES / "rewards.yaml").read_text())
    content["base"] = str(RECIPES / "tiny.yaml")
    content["stages"]["rlvr"] |= change
    with pytest.raises(UserError) as caught:
        Recipe.model_validate(content)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_what_asks_for_a_stage_that_the_recipe_has_not_is_refused() -> None:
    content = tiny()
    content["evaluation"]["benchmarks"][1]["stages"] = ["vqa_sft", "rlvr"]
    with pytest.raises(UserError, match=r"`vqa-heldout` is scored after rlvr, but `stages.rlvr`"):
        Recipe.model_validate(content)
    recipe = Recipe.model_validate(tiny())
    assert recipe.trained == list(PIPELINE)
    with pytest.raises(UserError, match=r"no section `stages.rlvr`: recipes/rewards.yaml has one"):
        recipe.stage(Stage.RLVR)


@pytest.mark.parametrize(
    "section",
    [
        DataPrep,
        Model,
        SFTStage,
        DPOStage,
        RewardStage,
        Benchmark,
        Evaluation,
        Tracking,
        Serving,
        Distributed,
        Compute,
        Request,
        Adapter,
        Recipe,
    ],
)
def test_the_tiny_recipe_documents_every_key(section: type[Section]) -> None:
    text = (RECIPES / "tiny.yaml").read_text()
    if section is RewardStage:  # which the tiny recipe has not
        text += (RECIPES / "rewards.yaml").read_text()
    assert [key for key in section.model_fields if f"{key}:" not in text] == []


def test_a_section_that_contradicts_itself_is_one_sentence() -> None:
    content = Recipe.load(RECIPES / "tiny.yaml").model_dump(mode="json")
    content["evaluation"]["champion_benchmark"] = "nope"
    with pytest.raises(UserError) as caught:
        Recipe.model_validate(content)
    assert caught.value.message == (
        "recipe: `evaluation`: champion_benchmark: no benchmark `nope` after dpo"
    )
