"""A recipe as an input and output of Flyte tasks."""

from collections import OrderedDict
from pathlib import Path

import pytest
from flytekit import FlyteContextManager
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.type_engine import TypeEngine
from flytekit.interaction.click_types import JsonParamType
from flytekit.models.types import LiteralType, SimpleType
from flytekit.tools.translator import get_serializable

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from tasks.default_recipe import ROOT, TINY
from tasks.pipeline_run import open_run

IMAGES = [Image(kind.value, "registry/siqvl", "1") for kind in Kind]


def test_a_recipe_passes_as_it_is() -> None:
    context = FlyteContextManager.current_context()
    expected = TypeEngine.to_literal_type(Recipe)
    literal = TypeEngine.to_literal(context, TINY, Recipe, expected)
    assert literal.scalar.binary.tag == "msgpack"
    received = TypeEngine.to_python_value(context, literal, Recipe)
    assert received == Recipe.load(ROOT / "recipes" / "tiny.yaml")


def test_the_default_is_shown_as_its_file_and_read_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert TINY.model_dump_json() == "recipes/tiny.yaml"
    monkeypatch.chdir(tmp_path)
    read = JsonParamType(Recipe).convert(TINY.model_dump_json(), None, None)
    assert read == Recipe.load(ROOT / "recipes" / "tiny.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nowhere.yaml", "recipe file nowhere.yaml does not exist"),
        ("", "is a folder"),
        ('{"seed": 1, "seed": 2}', "--recipe: key `seed` stands twice"),
        ('{"seed": 1', "--recipe is not valid JSON"),
        ('{"base": "nowhere.yaml"}', "`base`: nowhere.yaml does not exist"),
    ],
)
def test_what_names_no_recipe_on_the_command_line_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        JsonParamType(Recipe).convert(text, None, None)
    assert said in caught.value.message


def test_a_recipe_is_named_by_its_file_or_written_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    read = JsonParamType(Recipe).convert(' {"base": "recipes/tiny.yaml", "seed": 3}', None, None)
    assert read == Recipe.load("recipes/tiny.yaml").model_copy(update={"seed": 3})
    assert JsonParamType(dict).convert('{"a": 1}', None, None) == {"a": 1}  # as flytekit does


def test_a_task_of_many_recipes_stays_small() -> None:
    settings = SerializationSettings(
        image_config=ImageConfig(default_image=IMAGES[0], images=IMAGES),
        project="siqvl",
        domain="development",
        version="v1",
    )
    spec = get_serializable(OrderedDict(), settings, open_run)
    assert len(spec.template.interface.outputs) > 10
    assert len(spec.to_flyte_idl().SerializeToString()) < 20_000


def test_a_fetched_task_takes_a_recipe() -> None:
    sent = TypeEngine.to_literal_type(Recipe).to_flyte_idl()
    assert TypeEngine.guess_python_type(LiteralType.from_flyte_idl(sent)) is Recipe


def test_another_structure_is_none() -> None:
    transformer = TypeEngine.get_transformer(Recipe)
    with pytest.raises(ValueError, match="is not a recipe"):
        transformer.guess_python_type(LiteralType(simple=SimpleType.STRUCT))
