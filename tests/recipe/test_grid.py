"""Grids: which recipes they stand for, and which are refused before any work."""

from itertools import product
from pathlib import Path

import pytest
from pydantic import ValidationError

from siqvl.errors import UserError
from siqvl.recipe import Recipe, Stage
from siqvl.recipe.grid import MOST, Grid, Point, points

TINY = Recipe.load(Path(__file__).parents[2] / "recipes" / "tiny.yaml")
STAGE = Stage.VQA_SFT


def of(stage: Stage = STAGE, **values: list) -> list[Point]:
    return points(TINY, stage, Grid(values=values))


def test_every_combination_is_a_recipe_in_the_order_of_keys_and_values() -> None:
    rates, sizes = [0.01, 0.001, 0.1], [16, 4]
    found = of(learning_rate=rates, batch_size=sizes)
    figures = [point.recipe.stage(STAGE) for point in found]
    assert [(one.learning_rate, one.batch_size) for one in figures] == list(product(rates, sizes))
    assert [point.name for point in found][:2] == [
        "learning_rate=0.01, batch_size=16",
        "learning_rate=0.01, batch_size=4",
    ]


def test_all_else_stays_as_it_is() -> None:
    (point,) = of(learning_rate=[0.5])
    content, expected = (recipe.model_dump() for recipe in (point.recipe, TINY))
    expected["stages"][STAGE.value]["learning_rate"] = 0.5
    assert content == expected


def test_seeds_are_those_of_the_recipe() -> None:
    found = of(seed=[3, 1])
    assert [point.recipe.seed for point in found] == [3, 1]
    assert [point.recipe.stages for point in found] == [TINY.stages] * 2


@pytest.mark.parametrize(("key", "other"), [("max_steps", "epochs"), ("epochs", "max_steps")])
def test_steps_and_epochs_take_the_place_of_one_another(key: str, other: str) -> None:
    (point,) = of(**{key: [2]})
    figures = point.recipe.stage(STAGE)
    assert getattr(figures, key) == 2
    assert getattr(figures, other) is None


def test_keys_of_dpo_alone_and_values_that_are_mappings_or_null() -> None:
    found = of(Stage.DPO, loss=[{"sigmoid": 1.0}, {"hinge": 0.5}], ema=[None, 0.9])
    losses = [(p.recipe.stages.dpo.loss, p.recipe.stages.dpo.ema) for p in found]
    assert losses == [
        ({"sigmoid": 1.0}, None),
        ({"sigmoid": 1.0}, 0.9),
        ({"hinge": 0.5}, None),
        ({"hinge": 0.5}, 0.9),
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"learning_rat": [1e-3]},
            "grid (learning_rat=0.001): recipe: unknown key `stages.vqa_sft.learning_rat`, did you "
            "mean `learning_rate`?",
        ),
        (
            {"learning_rate": [1e-3, -1]},
            "grid (learning_rate=-1): recipe: `stages.vqa_sft.learning_rate`: Input should be "
            "greater than 0 (got -1)",
        ),
        ({"batch_size": ["many"]}, "`stages.vqa_sft.batch_size`"),
        ({"seed": ["one"]}, "`seed`"),
        ({"beta": [0.1]}, "unknown key `stages.vqa_sft.beta`"),
        ({"learning_rate": []}, "grid: `learning_rate` has no values to try"),
        ({"learning_rate": [1, 2, 1]}, "grid: `learning_rate` names a value twice: [1, 2, 1]"),
        ({"max_steps": [1], "epochs": [1]}, "grid: `max_steps` and `epochs` exclude each other"),
        (
            {"seed": list(range(MOST + 1))},
            f"grid: {MOST + 1} combinations, more than {MOST}; try fewer",
        ),
    ],
)
def test_what_is_no_grid_of_the_stage_is_one_line(values: dict[str, list], message: str) -> None:
    with pytest.raises(UserError) as caught:
        of(**values)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_the_largest_grid_is_taken() -> None:
    assert len(of(seed=list(range(MOST // 2)), batch_size=[1, 2])) == MOST


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(ValidationError, match="values"):
        Grid(values={})
    with pytest.raises(ValidationError, match="extra"):
        Grid.model_validate({"values": {"seed": [1]}, "value": {}})


def test_every_point_has_a_folder_of_its_own_that_any_disk_takes() -> None:
    sources = [
        [{"kind": "table", "path": f"{folder}/rows.csv"}] * 5
        for folder in ("a/b", "a_b", "a b", "x" * 300)
    ]
    folders = [point.folder for point in of(sources=sources, learning_rate=[1e-3, 2e-3])]
    assert len(set(folders)) == 8
    for folder in folders:
        assert len(folder.encode()) < 100
        assert not set(folder) & set("/\\ '\"[]{}")


def test_points_survive_the_way_to_another_pod() -> None:
    for point in of(learning_rate=[1e-3], seed=[1, 2]):
        assert Point.model_validate_json(point.model_dump_json()) == point
