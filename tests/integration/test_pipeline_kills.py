"""A pipeline that is killed again and again, at any moment, comes to what it would have come to."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from siqvl.recipe import Recipe
from siqvl.tracking.runs import client
from tasks.once import marks
from tests.integration.killed_pipelines import Ended, Kill, Outcome, Server, outcome, server
from tests.small_recipe import small_recipe

pytestmark = pytest.mark.integration

SIGNALS = [signal.SIGKILL] * 6 + [signal.SIGTERM, signal.SIGINT]
KILLS, A_PIPELINE = 200, 10  # of the drill, and of each of its pipelines


def plain(folder: Path) -> Recipe:
    """The small recipe on fewer rows, which logs to a store that is made already."""
    folder.mkdir()
    content = small_recipe(folder).model_dump(mode="json")
    content["tracking"] |= {"samples": 1, "sample_tokens": 4}
    for stage in content["stages"].values():
        stage |= {"batch_size": 2, "saving_steps": 1}
        for source in stage["sources"]:
            source["max_samples"] = 8
    for benchmark in content["evaluation"]["benchmarks"]:
        benchmark |= {"max_new_tokens": 2}
        benchmark["source"]["max_samples"] = 6
    recipe = Recipe.model_validate(content)
    client(recipe.tracking.uri or "").search_experiments()
    return recipe


def every_step(folder: Path) -> Recipe:
    """And with controls, sampled pairs, rows and answers that are shared out."""
    content = plain(folder).model_dump(mode="json")
    content["evaluation"] |= {"random_tower": True, "likelihood_control": True, "shards": 2}
    content["data"] |= {"shards": 2}
    content["stages"]["dpo"]["sampled"] = {
        "source": {"kind": "shapes", "subsets": ["reasoning"], "skip": 18000, "max_samples": 8},
        **{"prompt_suffix": "\n", "answer_marker": "Answer:", "samples": 2, "max_new_tokens": 8},
    }
    return Recipe.model_validate(content)


@dataclass(frozen=True)
class Straight:
    """An undisturbed pipeline: how long it takes, and what it comes to."""

    ended: Ended
    outcome: Outcome


@pytest.fixture(scope="module")
def attempts() -> Iterator[Server]:
    with server() as found:
        yield found


@pytest.fixture(scope="module")
def straight(attempts: Server, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    return undisturbed(attempts, tmp_path_factory.mktemp("straight"), plain)


def undisturbed(attempts: Server, folder: Path, kind: Any) -> Straight:
    recipe = kind(folder / "pipeline")
    ended = attempts.attempt(recipe, folder / "pipeline")
    assert ended.code == 0, (folder / "pipeline" / "printed").read_text()[-3000:]
    found = outcome(recipe)
    assert found.folders == 1
    assert found.left == []
    assert {status for _, status in found.runs} == {"FINISHED"}
    return Straight(ended, found)


def kills(chance: random.Random, straight: Straight, count: int) -> list[Kill]:
    """So that they come anywhere in a pipeline, each attempt going on where the one before was."""
    places = [(part + chance.random()) / count for part in range(count)]
    shares = [place - before for before, place in zip([0.0, *places], places, strict=False)]
    found = []
    for share in shares:
        by = chance.choice(SIGNALS)
        if chance.random() < 0.5:
            seconds = chance.random() + share * straight.ended.seconds
            found.append(Kill(seconds=seconds, by=by))
        else:
            changes = chance.randint(1, 40) + round(share * straight.ended.changes)
            found.append(Kill(change=changes, by=by))
    return found


def killed(
    attempts: Server, folder: Path, kind: Any, straight: Straight, seed: int, count: int
) -> Counter[str]:
    """Kill a pipeline some times and compare what it comes to; in which steps it was killed."""
    recipe, hit = kind(folder), Counter[str]()
    for kill in kills(random.Random(seed), straight, count):
        ended = attempts.attempt(recipe, folder, kill)
        if ended.code == 0:  # it was there before
            break
        hit[under_way(recipe)] += 1
    else:
        ended = attempts.attempt(recipe, folder)
    printed = (folder / "printed").read_text()
    assert ended.code == 0, printed[-3000:]
    assert outcome(recipe) == straight.outcome, printed
    assert len(re.findall("^going on in ", printed, re.MULTILINE)) <= hit.total()
    return hit


def under_way(recipe: Recipe) -> str:
    """The step that was begun and is not done."""
    folders = sorted(Path(recipe.output_dir, recipe.name).glob("2*"))
    if not folders:
        return "before the first"
    begun = [name for name, mark in marks(folders[-1]).items() if mark.made is None]
    return begun[-1].partition("-")[0] if begun else "between two"


def test_killed_pipelines_come_to_what_an_undisturbed_one_does(
    attempts: Server, straight: Straight, tmp_path: Path
) -> None:
    hit = killed(attempts, tmp_path / "killed", plain, straight, 5, 5)
    print(f"\nkilled in {dict(hit)}", end="")


@pytest.mark.drill
def test_two_hundred_kills(attempts: Server, straight: Straight, tmp_path: Path) -> None:
    kinds = {plain: straight, every_step: undisturbed(attempts, tmp_path, every_step)}
    hit, number = Counter[str](), 0
    while hit.total() < KILLS:
        kind = list(kinds)[number % 4 == 3]
        folder = tmp_path / f"killed-{number}"
        hit += killed(attempts, folder, kind, kinds[kind], number, A_PIPELINE)
        shutil.rmtree(folder)
        number += 1
        print(f"\n{hit.total()} kills of {number} pipelines", end="", flush=True)
    print(f", in {dict(hit.most_common())}", end="")
