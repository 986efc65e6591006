"""`--set`: single keys of a recipe changed without a file, and one sentence for what is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from siqvl.errors import UserError
from siqvl.recipe import Recipe, Stage
from siqvl.recipe.grid import Grid, points
from siqvl.recipe.reading.changes import in_short

ROOT = Path(__file__).parents[3]
VQA = "stages.vqa_sft"


@pytest.fixture(scope="module")
def tiny() -> Recipe:
    return Recipe.load(ROOT / "recipes" / "tiny.yaml")


def at(recipe: Recipe, key: str) -> Any:
    value: Any = recipe.model_dump()
    for part in key.split("."):
        value = value[int(part) if isinstance(value, list) else part]
    return value


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        (f"{VQA}.learning_rate=1e-4", f"{VQA}.learning_rate", 1e-4),  # a text in YAML 1.1
        (f"{VQA}.learning_rate = 5E-5", f"{VQA}.learning_rate", 5e-5),
        (f"{VQA}.learning_rates={{projector: 1e-4}}", f"{VQA}.learning_rates", {"projector": 1e-4}),
        (f"{VQA}.learning_rates.projector=1e-4", f"{VQA}.learning_rates", {"projector": 1e-4}),
        (f"{VQA}.sources.1.max_samples=100", f"{VQA}.sources.1.max_samples", 100),
        (f"{VQA}.trainable=[projector]", f"{VQA}.trainable", ["projector"]),
        ("stages.dpo.loss={sigmoid: 2}", "stages.dpo.loss", {"sigmoid": 2.0}),  # whole, not merged
        ("stages.dpo.sampled.samples=5", "stages.dpo.sampled.samples", 5),
        ("stages.dpo.sampled.prompt_suffix=Say: # yes", "stages.dpo.sampled.prompt_suffix", None),
        ("model.system_prompt=null", "model.system_prompt", None),
        ('model.system_prompt=""', "model.system_prompt", ""),
        ("model.vision_revision=12e4567", "model.vision_revision", "12e4567"),  # no infinity
        ("data.leaks=none", "data.leaks", "none"),
        ("name=007", "name", "007"),
        ("evaluation.gates=[]", "evaluation.gates", []),
        ("compute.training.memory=64Gi", "compute.training.memory", "64Gi"),
    ],
)
def test_a_key_takes_the_value(tiny: Recipe, change: str, key: str, value: Any) -> None:
    changed = tiny.changed([change])
    expected = "Say: # yes" if "Say" in change else value
    assert at(changed, key) == expected
    assert type(at(changed, key)) is type(expected)
    assert at(tiny, key) != expected or key in ("model.system_prompt", "data.leaks")


def test_the_same_as_a_file_with_that_key(tiny: Recipe) -> None:
    content = yaml.safe_load((ROOT / "recipes" / "tiny.yaml").read_text())
    content["stages"]["vqa_sft"]["learning_rate"] = 1.0e-4
    changed = tiny.changed([f"{VQA}.learning_rate=1e-4"])
    written = Recipe.model_validate(content)
    assert changed.hash() == written.hash() != tiny.hash()
    assert changed.model_copy(update={"changes": []}) == written
    assert changed.changes == [f"{VQA}.learning_rate=1e-4"]
    assert "changes" not in tiny.model_dump()
    assert Recipe.model_validate_json(changed.model_dump_json()) == changed


def test_a_json_list_is_as_several(tiny: Recipe) -> None:
    listed = tiny.changed([f'["seed=3", "{VQA}.epochs=1.5"]', f"{VQA}.max_steps=null"])
    assert listed == tiny.changed(["seed=3", f"{VQA}.epochs=1.5", f"{VQA}.max_steps=null"])
    assert (listed.seed, listed.stages.vqa_sft.epochs) == (3, 1.5)


def test_a_section_that_is_not_there_is_begun_by_its_keys(tiny: Recipe) -> None:
    without = tiny.changed(["stages.dpo.sampled=null"])
    assert without.stages.dpo.sampled is None
    begun = without.changed(
        ["stages.dpo.sampled.source={kind: shapes, subsets: [questions]}"]
    ).stages.dpo.sampled
    assert begun is not None
    assert (begun.source.kind, begun.samples) == ("shapes", 4)
    with pytest.raises(UserError, match=r"missing key `stages\.dpo\.sampled\.source`"):
        without.changed(["stages.dpo.sampled.samples=2"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([f"{VQA}.learning_rat=1"], "there is no key `learning_rat`, did you mean `learning_rate`"),
        (["stages.vqa_sf.seed=1"], "there is no key `vqa_sf`, did you mean `vqa_sft`?"),
        (["base=recipes/easyvqa.yaml"], "there is no key `base`"),
        ([f"{VQA}.sources.0.max_sample=1"], "no key `max_sample`, did you mean `max_samples`?"),
        ([f"{VQA}.sources.9.max_samples=1"], "no entry `9` in a list: its entries are 0 to 1"),
        ([f"{VQA}.sources.x=1"], "no entry `x` in a list"),
        ([f"{VQA}.learning_rate.x=1"], "holds no keys: set it as a whole"),
        ([f"{VQA}.learning_rate=-1"], f"`{VQA}.learning_rate`: Input should be greater than 0"),
        ([f"{VQA}.learning_rate=fast"], "Input should be a valid number"),
        ([f"{VQA}.epochs=1"], f"give exactly one of `max_steps` and `epochs`; add --set {VQA}.max"),
        (["seed=1", "seed=2"], "--set sets `seed` twice, as seed=1 and as seed=2"),
        (["data={shards: 2}", "data.shards=3"], "--set sets `data` twice"),
        (["seed"], "write a key and its value, as --set stages.vqa_sft.learning_rate=1e-4"),
        (["=1"], "write a key and its value"),
        (["stages..vqa_sft=1"], "write a key and its value"),
        (["seed="], "write seed=null for none"),
        (["seed=[1"], "--set seed=[1 is not valid YAML"),
        (["stages.dpo.loss={sft: 1, sft: 2}"], "key `sft` stands twice"),
        (["[1]"], "or a JSON list"),
        (['["seed=1"'], "or a JSON list"),
        ([f"{VQA}.sources.00.max_samples=1"], "no entry `00` in a list: its entries are 0 to 1"),
        (['changes=["seed=5"]'], "`changes` is what --set notes, and no setting"),
        ([f"{VQA}.trainable.0=language_model"], "trainable names a part twice: language_model"),
        (["changes=[]"], "`changes` is what --set notes, and no setting"),
    ],
)
def test_what_is_wrong_is_one_sentence(tiny: Recipe, changes: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny.changed(changes)
    assert said in caught.value.message
    assert "--set" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_password_is_not_repeated(tiny: Recipe) -> None:
    for change in ("tracking.uri=http://me:hunter2@host:5000", "seed=http://me:hunter2@host"):
        with pytest.raises(UserError) as caught:
            tiny.changed([change])
        assert "hunter2" not in caught.value.message


def test_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny\.yaml: --set sed=1: there is no key `sed`"):
        Recipe.load(ROOT / "recipes" / "tiny.yaml", ["sed=1"])


def test_changes_of_a_changed_recipe_add_up(tiny: Recipe) -> None:
    twice = tiny.changed(["seed=1", "data.shards=2"]).changed(["seed=5"])
    assert (twice.seed, twice.data.shards) == (5, 2)
    assert twice.changes == ["data.shards=2", "seed=5"]


def test_a_grid_over_a_changed_recipe(tiny: Recipe) -> None:
    changed = tiny.changed([f"{VQA}.batch_size=4"])
    grid = Grid(values={"learning_rate": [1e-4, 2e-4]})
    tried = points(changed, Stage.VQA_SFT, grid)
    assert [one.recipe.stages.vqa_sft.batch_size for one in tried] == [4, 4]
    assert [one.recipe.stages.vqa_sft.learning_rate for one in tried] == [1e-4, 2e-4]
    rate = tiny.changed([f"{VQA}.learning_rate=1"])
    with pytest.raises(UserError, match="`learning_rate` is tried, and set by --set"):
        points(rate, Stage.VQA_SFT, grid)


def test_in_short() -> None:
    assert in_short([]) == ""
    assert in_short([f"{VQA}.learning_rate=1e-4", "seed=3"]) == "vqa_sft.learning_rate=1e-4, seed=3"
    many = [f"{VQA}.sources.{number}.max_samples=100" for number in range(6)]
    assert in_short(many) == ", ".join(f"{n}.max_samples=100" for n in range(4)) + ", +2"
    assert in_short(["name=" + "x" * 100], most=20) == "name=xxxxxxxxxxxxxx…"
