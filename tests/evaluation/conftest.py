"""A small recipe with a benchmark of every kind, their rows, and a model that answers them."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from siqvl.evaluation.asking.encoded_pictures import EncodedPictures
from siqvl.evaluation.asking.predict import method_of
from siqvl.evaluation.asking.question_plan import plan
from siqvl.evaluation.benchmarks.benchmark_rows import load_questions
from siqvl.evaluation.benchmarks.prepare_benchmarks import prepare_benchmarks
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Recipe, Stage

#: Stands for "Answer:": a model of two steps writes nothing else so surely.
MARKER = "e"

TEST = {"kind": "shapes", "split": "test", "max_samples": 12}
BENCHMARKS = [
    {
        "name": "asked",
        "source": TEST | {"subsets": ["vqa"]},
        "training": TEST | {"subsets": ["vqa"], "split": "train", "max_samples": 50},
        "max_new_tokens": 5,
    },
    {
        "name": "reasoned",
        "source": TEST | {"subsets": ["reasoning"]},
        "prompt_suffix": "\nThink step by step, then answer after 'Answer:'.",
        "answer_marker": MARKER,
        "blind": ["no_picture"],
        "max_new_tokens": 24,
    },
    {
        "name": "letters",
        "source": TEST | {"subsets": ["vqa"]},
        "method": "likelihood",
        "letters": True,
        "scorer": "choice",
    },
    {
        "name": "pairs",
        "source": TEST | {"subsets": ["reasoning"]},
        "method": "preference",
    },
]


def with_evaluation(recipe: Recipe, **evaluation: Any) -> Recipe:
    """The recipe with all the benchmarks above, and no gate."""
    content = recipe.model_dump(mode="json")
    content["evaluation"] = {"benchmarks": BENCHMARKS, "batch_size": 5, **evaluation}
    return Recipe.model_validate(content)


@pytest.fixture(scope="session")
def asking(trained) -> Recipe:
    return with_evaluation(trained.recipe)


@pytest.fixture(scope="session")
def rows(asking: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared benchmarks."""
    folder = tmp_path_factory.mktemp("rows")
    prepare_benchmarks(asking, folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(trained) -> Path:
    return trained.checkpoint(Stage.COT_SFT)


class Put(NamedTuple):
    """A benchmark, ready to be put to a model."""

    model: Any
    processor: Any
    questions: Any
    method: Any
    plan: Any
    pictures: EncodedPictures

    def prompts(self, player: str) -> list[Any]:
        """A player's prompts, in the order of the rows."""
        numbers = {ask: n for n, asks in enumerate(self.plan.asks) for ask in asks}
        count = len(self.questions.rows)
        return [self.plan.prompts[numbers[player, row]] for row in range(count)]

    def answers(self, prompts: list[Any]) -> list[Any]:
        return self.method.answer(prompts, self.pictures, lambda number, tokens: None)


@pytest.fixture(scope="session")
def put(asking: Recipe, rows: Path, checkpoint: Path):
    """Builds a `Put` from the name of a benchmark."""
    model, processor = load_checkpoint(checkpoint)

    def build(name: str, **changes: Any) -> Put:
        benchmark = next(one for one in asking.evaluation.benchmarks if one.name == name)
        questions = load_questions(benchmark.model_copy(update=changes), rows)
        method = method_of(questions.benchmark, model, processor, 5)
        planned = plan(questions, method, 5)
        pictures = EncodedPictures(model, processor, 4)
        shown = [image for prompt in planned.prompts for image in prompt.pictures]
        pictures.load(shown, questions.dataset, questions.places)
        return Put(model, processor, questions, method, planned, pictures)

    return build
