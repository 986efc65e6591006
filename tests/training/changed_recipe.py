"""A recipe in which some figures of one stage are others."""

from siqvl.recipe import Recipe, Stage


def changed(recipe: Recipe, stage: Stage, **values: object) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["stages"][stage.value] |= values
    return Recipe.model_validate(content)
