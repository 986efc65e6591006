"""The generated world: balanced, split cleanly, and the same everywhere."""

import hashlib
import itertools
import random
import subprocess
import sys
from collections import Counter, defaultdict

import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.shapes.reasoning import REASONING
from siqvl.data.shapes.scene_questions import VQA, Ask, Caption, find_scene
from siqvl.data.shapes.scenes import (
    ALL,
    COLORS,
    HELD_OUT,
    SEEN,
    SIDE,
    SPLITS,
    Combination,
    Thing,
    World,
    arrangement_hash,
    draw,
    place,
)
from siqvl.errors import UserError
from siqvl.recipe import Source

TEMPLATES = (Caption(), *VQA, *REASONING)
BY_NAME = {template.name: template for template in TEMPLATES}


def stage(template, split, count, seed=0):
    world = World(split)
    return [find_scene(template, world, random.Random(f"{seed}/{index}")) for index in range(count)]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "caption"])
def test_reading_only_the_question_does_not_help(name, split):
    """The best guesser per question gets hardly more than one over the number of answers."""
    answers = defaultdict(Counter)
    chance = {}
    asked = stage(BY_NAME[name], split, 4000)
    for ask, _ in asked:
        answers[ask.question][ask.answer] += 1
        chance[ask.question] = 1 / len(BY_NAME[name].options(World(split), ask))
    right = sum(max(counts.values()) for counts in answers.values()) / len(asked)
    expected = sum(sum(answers[q].values()) * chance[q] for q in answers) / len(asked)
    # a finite sample has a majority of its own; this is two to three of its standard deviations
    assert expected - 0.02 < right < expected + 0.08


@pytest.mark.parametrize("name", ["how_many", "corners", "compare", "count"])
def test_answers_are_even_over_all_questions(name):
    counts = Counter(ask.answer for ask, _ in stage(BY_NAME[name], "train", 8000))
    assert max(counts.values()) < 1.2 * min(counts.values())


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_splits_share_no_arrangement(template):
    # also under another seed
    scenes = {
        split: {s for seed in (0, 1) for _, s in stage(template, split, 600, seed)}
        for split in SPLITS
    }
    if template.name == "exists":  # "no" to a held-out look may be any picture without it
        scenes["heldout"] = {s for s in scenes["heldout"] if {t.look for t in s} & set(HELD_OUT)}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not scenes[one] & scenes[other], (one, other)


def test_every_arrangement_of_two_belongs_to_one_split():
    """All of them, and not a sample: the splits cannot meet, and leave nothing out."""
    owners = Counter()
    for first, second in itertools.product(SEEN, SEEN):
        for cells in itertools.combinations(range(4), 2):
            scene = (Thing(cells[0], first), Thing(cells[1], second))
            (owner,) = [split for split in SPLITS if World(split).owns(scene)]
            owners[owner] += 1
    total = sum(owners.values())
    assert total == 6 * 22**2
    assert owners["heldout"] == 0
    for split, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        # four standard deviations of a fair draw
        assert abs(owners[split] - share * total) < 4 * (share * (1 - share) * total) ** 0.5


def test_rows_of_splits_share_no_picture_and_no_question_about_one():
    """In what a recipe names: a search over settings that reads `validation` sees no test row."""
    families = ["vqa", "reasoning", "reasoning_direct", "captions"]
    rows = {
        split: list(
            sources.rows(
                Source(kind="shapes", subsets=families, split=split, max_samples=800),
                RowKind.EVALUATION,
                0,
            )
        )
        for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not {row["id"] for row in rows[one]} & {row["id"] for row in rows[other]}
        pictures = [{row["images"][0].tobytes() for row in rows[split]} for split in (one, other)]
        assert not pictures[0] & pictures[1]


def test_training_rows_are_those_of_before_there_was_validation():
    """It was taken out of `test`: what base parts and stages have learnt from stays out of it."""
    for template in TEMPLATES:
        for _, scene in stage(template, "train", 300):
            assert arrangement_hash(scene) % 5
        for split in ("validation", "test"):
            for _, scene in stage(template, split, 300):
                assert arrangement_hash(scene) % 5 == 0


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_held_out_combinations_are_shown_in_their_split_only(template):
    for split in ("train", "validation", "test"):
        for _, scene in stage(template, split, 300):
            assert not {thing.look for thing in scene} & set(HELD_OUT)
    for ask, scene in stage(template, "heldout", 300):
        assert {thing.look for thing in scene} & set(HELD_OUT) or ask.answer == "no"
    assert len(ALL) == 24
    assert len(SEEN) == 22


@pytest.mark.parametrize("kind", [RowKind.SFT, RowKind.PREFERENCE])
def test_held_out_combinations_are_never_named_in_training(kind):
    source = Source(kind="shapes", max_samples=2000)
    for row in sources.rows(source, kind, 0):
        text = str({name: value for name, value in row.items() if name != "images"})
        assert "purple cross" not in text
        assert "green triangle" not in text


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_true_of_the_scene(split):
    """Worked out here once more, from the scene alone."""
    for ask, scene in stage(BY_NAME["color"], split, 200):
        assert [t.color for t in scene if t.shape == ask.about[0]] == [ask.answer]
    for ask, scene in stage(BY_NAME["shape"], split, 200):
        assert [t.shape for t in scene if t.color == ask.about[0]] == [ask.answer]
    cells = {"northwest": 0, "northeast": 1, "southwest": 2, "southeast": 3}
    for ask, scene in stage(BY_NAME["where"], split, 200):
        assert [t.cell for t in scene if (t.color, t.shape) == ask.about] == [cells[ask.answer]]
    for ask, scene in stage(BY_NAME["exists"], split, 200):
        assert (ask.answer == "yes") == any((t.color, t.shape) == ask.about for t in scene)
    for ask, scene in stage(BY_NAME["how_many"], split, 200):
        assert ask.answer == str(len(scene))
    for ask, scene in stage(BY_NAME["count"], split, 200):
        assert ask.answer == str(sum(ask.about[0] in (t.color, t.shape) for t in scene))
    corners = {"circle": 0, "triangle": 3, "square": 4}
    for ask, scene in stage(BY_NAME["corners"], split, 200):
        assert ask.answer == str(sum(corners[t.shape] for t in scene))
    for ask, scene in stage(BY_NAME["compare"], split, 200):
        a, b = (sum(kind in (t.color, t.shape) for t in scene) for kind in ask.about)
        assert ask.answer == ("more" if a > b else "fewer" if a < b else "same")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_questions_about_a_given_scene_have_one_true_answer(template):
    """The scene a question was found for gives every question about it the answer it has there."""
    world, found = World("train"), Counter()
    for index in range(400):
        rng = random.Random(f"about/{index}")
        other = BY_NAME[rng.choice(list(BY_NAME))]
        _, scene = find_scene(other, world, rng)
        ask = template.ask_about(rng, world, scene)
        found[ask is not None] += 1
        if ask is None:
            continue
        assert ask.answer == true_answer(template.name, ask.about, scene)
        assert ask.question == reworded(template, ask, rng)
    assert found[True] > 150


def true_answer(name, about, scene):
    """Worked out once more, from the scene alone."""
    looks = [(thing.color, thing.shape) for thing in scene]
    if name == "caption":
        places = ("northwest", "northeast", "southwest", "southeast")
        return ", ".join(f"{thing.color} {thing.shape} {places[thing.cell]}" for thing in scene)
    if name in {"color", "shape"}:
        own, other = (1, 0) if name == "color" else (0, 1)
        (answer,) = [look[other] for look in looks if look[own] == about[0]]
        return answer
    if name == "where":
        (cell,) = [thing.cell for thing in scene if (thing.color, thing.shape) == about]
        return ("northwest", "northeast", "southwest", "southeast")[cell]
    if name == "exists":
        return "yes" if about in looks else "no"
    counts = [sum(kind in look for look in looks) for kind in about]
    if name == "compare":
        return ("fewer", "same", "more")[1 + (counts[0] > counts[1]) - (counts[0] < counts[1])]
    corners = {"circle": 0, "triangle": 3, "square": 4, "cross": 12}
    totals = {
        "how_many": len(looks),
        "count": sum(counts),
        "corners": sum(corners[shape] for _, shape in looks),
    }
    return str(totals[name])


def reworded(template, ask, rng):
    """The question as it is asked before a scene is drawn, about the same thing."""
    for _ in range(20_000):
        other = template.ask(rng, World("train"))
        if other.about == ask.about:
            return other.question
    raise AssertionError(f"{ask.question} is never asked otherwise")


@pytest.mark.parametrize("template", REASONING, ids=lambda template: template.name)
def test_steps_lead_to_the_answer_and_are_short(template):
    for ask, scene in stage(template, "train", 300):
        steps, answer = template.work_out(scene, ask)
        assert answer == ask.answer
        assert len(steps.split()) < 60
        counted = [
            thing for thing in scene if not ask.about or {thing.color, thing.shape} & set(ask.about)
        ]
        for thing in counted:
            assert str(thing.look) in steps


def test_steps_by_hand():
    red, blue = Combination("red", "circle"), Combination("blue", "circle")
    scene = (Thing(0, red), Thing(2, blue), Thing(3, red))
    count, compare, corners = REASONING
    assert count.work_out(scene, Ask("", "", ("red",))) == (
        "red: red circle northwest 1, red circle southeast 2.",
        "2",
    )
    assert count.work_out(scene, Ask("", "", ("square",))) == ("square: none.", "0")
    assert compare.work_out(scene, Ask("", "", ("blue", "red"))) == (
        "blue: blue circle southwest 1; "
        "red: red circle northwest 1, red circle southeast 2. 1 < 2.",
        "fewer",
    )
    assert corners.work_out((Thing(1, Combination("red", "square")),), Ask("", "")) == (
        "red square: 0 + 4 = 4.",
        "4",
    )


def test_rejected_completions_are_wrong_in_the_same_form():
    source = Source(kind="shapes", max_samples=1200)
    for row in sources.rows(source, RowKind.PREFERENCE, 0):
        chosen, rejected = (row[side][0]["content"] for side in ("chosen", "rejected"))
        assert chosen != rejected
        assert ("Answer:" in chosen) == ("Answer:" in rejected) == ("/reasoning/" in row["id"])
        assert chosen.rpartition("Answer:")[2] != rejected.rpartition("Answer:")[2]


def test_direct_and_reasoned_questions_have_the_same_ids():
    ids = [
        [
            row["id"]
            for row in sources.rows(
                Source(kind="shapes", subsets=[family], split="test", max_samples=20),
                RowKind.EVALUATION,
                3,
            )
        ]
        for family in ("reasoning", "reasoning_direct")
    ]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 20


def test_direct_and_reasoned_rows_ask_the_same_about_the_same_picture():
    found = {}
    for family in ("reasoning", "reasoning_direct"):
        source = Source(kind="shapes", subsets=[family], max_samples=50)
        found[family] = list(sources.rows(source, RowKind.SFT, 3))
    for reasoned, direct in zip(*found.values(), strict=True):
        question = direct["prompt"][0]["content"]
        assert reasoned["prompt"][0]["content"].startswith(question + "\nThink")
        answer = direct["completion"][0]["content"]
        assert reasoned["completion"][0]["content"].endswith(f"\nAnswer: {answer}")
        assert reasoned["images"][0].tobytes() == direct["images"][0].tobytes()


def test_pictures_show_the_colours_where_the_scene_says():
    rng = random.Random(0)
    for _ in range(50):
        scene = place(rng, rng.sample(ALL, 4))
        picture = draw(scene, rng)
        assert picture.size == (SIDE, SIDE)
        assert picture.mode == "RGB"
        for thing in scene:
            x, y = 16 + 32 * (thing.cell % 2), 16 + 32 * (thing.cell // 2)
            near = zip(picture.getpixel((x, y)), COLORS[thing.color], strict=True)
            assert max(abs(a - b) for a, b in near) < 8
        assert min(picture.getpixel((32, 0))) > 230


FINGERPRINT = """
import hashlib
from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.recipe import Source
digest = hashlib.sha256()
for row in sources.rows(Source(kind="shapes", max_samples=40), RowKind.PREFERENCE, 7):
    digest.update(row["images"][0].tobytes())
    digest.update(repr(row["prompt"]).encode() + repr(row["rejected"]).encode())
print(digest.hexdigest())
"""


def test_every_process_draws_the_same():
    here = hashlib.sha256()
    for row in sources.rows(Source(kind="shapes", max_samples=40), RowKind.PREFERENCE, 7):
        here.update(row["images"][0].tobytes())
        here.update(repr(row["prompt"]).encode() + repr(row["rejected"]).encode())
    import os

    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run(
        [sys.executable, "-c", FINGERPRINT],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert there.stdout.strip() == here.hexdigest()


def test_a_scene_does_not_depend_on_how_many_are_taken():
    few, many = (
        list(sources.rows(Source(kind="shapes", max_samples=n), RowKind.EVALUATION, 0))
        for n in (10, 20)
    )
    for one, other in zip(few, many, strict=False):
        assert one["images"][0].tobytes() == other["images"][0].tobytes()
        assert one["answers"] == other["answers"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "source `shapes` has no end: say how many rows in `max_samples`"),
        (
            {"split": "dev", "max_samples": 1},
            "source `shapes`: unknown split `dev`; it has train, validation, test, heldout",
        ),
        (
            {"subsets": ["cot"], "max_samples": 1},
            "source `shapes`: unknown subset `cot`; "
            "it has captions, vqa, reasoning, reasoning_direct",
        ),
        ({"path": "x", "max_samples": 1}, "source `shapes` is generated: leave out `path`"),
    ],
)
def test_wrong_sources_are_refused(changes, message):
    with pytest.raises(UserError) as error:
        sources.check(Source(kind="shapes", **changes), RowKind.SFT)
    assert error.value.message == message
