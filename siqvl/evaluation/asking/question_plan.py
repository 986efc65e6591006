"""What is asked of a model for one benchmark: every different prompt once, in portions.

The portions follow from the rows, the players and the batch size alone. Shards and runs that go on
take whole ones, so that an answer is computed in the same company whoever computes it, and comes
out equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from siqvl.data.encoded import Encoded
from siqvl.errors import UserError
from siqvl.evaluation.asking.other_picture import Pictures, other_pictures
from siqvl.evaluation.asking.prompts import Method, Prompt
from siqvl.evaluation.benchmarks.benchmark_rows import Questions
from siqvl.recipe import Player

#: Batches in a portion: while one of its answers is written, the next prompt waits for the place.
#: What a killed run loses is a portion at most.
BATCHES = 4

Ask = tuple[Player, int]  # who asks, and about which row


@dataclass(frozen=True)
class Plan:
    """Prompts, and who asks them.

    Attributes:
        asks: for each prompt, the players and rows that it answers.
        portions: numbers of prompts; those of like length share one, which saves padding.
    """

    prompts: list[Prompt]
    asks: list[list[Ask]]
    portions: list[list[int]]

    def answers(self, portion: list[int]) -> int:
        """Counts the players' rows that a portion answers."""
        return sum(len(self.asks[number]) for number in portion)


def players_of(questions: Questions) -> list[Player]:
    """Names the players of a benchmark that need the model."""
    return ["picture", *questions.benchmark.blind]


def plan(questions: Questions, method: Method, batch_size: int) -> Plan:
    """Plans all that has to be asked.

    A question without its picture is the same prompt however many pictures it was asked about,
    and is put to the model once.

    Raises:
        UserError: no row has another picture that it could be asked with.
    """
    words: dict[Hashable, tuple[Encoded, ...]] = {}
    numbers: dict[Hashable, int] = {}
    prompts: list[Prompt] = []
    asks: list[list[Ask]] = []
    for player in players_of(questions):
        for row, pictures in enumerate(shown(questions, player)):
            text = (method.text(questions.rows[row]), len(pictures))
            if text not in words:
                words[text] = method.words(questions.rows[row], len(pictures))
            number = numbers.setdefault((text, pictures), len(prompts))
            if number == len(prompts):
                options = len(questions.rows[row]["choices"])
                prompts.append(Prompt(words[text], pictures, options))
                asks.append([])
            asks[number].append((player, row))
    order = sorted(range(len(prompts)), key=lambda number: (len(prompts[number]), number))
    size = batch_size * BATCHES
    starts = range(0, len(order), size)
    return Plan(prompts, asks, [order[start : start + size] for start in starts])


def shown(questions: Questions, player: Player) -> list[Pictures]:
    """Finds the pictures that a player is shown with each row, by their hashes."""
    own = [tuple(row["image_hashes"]) for row in questions.rows]
    if player == "no_picture":
        return [()] * len(own)
    if player == "picture":
        return own
    try:
        return other_pictures([row["id"] for row in questions.rows], own)
    except ValueError:
        raise UserError(
            f"benchmark `{questions.benchmark.name}` shows one and the same picture with every "
            "question: take `other_picture` out of its `blind`"
        ) from None
