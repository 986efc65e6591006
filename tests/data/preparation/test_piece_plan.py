"""Pieces come in order as soon as they can, so that merging need not wait for the last one."""

import pytest

from siqvl.data.preparation.piece_plan import Plan
from siqvl.data.preparation.pieces import BLOCK, find_pieces
from siqvl.data.preparation.prepare import prepare_pieces
from siqvl.data.preparation.workers import Checker, Workers
from siqvl.data.schema import RowKind
from siqvl.recipe import DataPrep, Source

SIZED = [Source(kind="shapes", max_samples=2 * BLOCK + 1), Source(kind="shapes", max_samples=3)]


def came(plan: Plan, workers: Workers) -> list[tuple[str, tuple[int, int]]]:
    """What is made, and what is given after it."""
    events = []

    def made():
        for found in plan.carried_out(workers):
            events.append(("made", tuple(map(int, found.file.split("-")[1:3]))))
            yield found

    for number, path in plan.in_order(made()):
        block = int(path.name.split("-")[2])
        assert path.is_file()
        events.append(("given", (number, block)))
    return events


def checker(folder, sources: list[Source]) -> Checker:
    return Checker(folder, sources, RowKind.SFT, 0, DataPrep())


def test_each_is_given_as_soon_as_it_is_there(tmp_path) -> None:
    one = checker(tmp_path, SIZED)
    with Workers(one) as workers:
        events = came(Plan(one, 0, 1, {}), workers)
    places = [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert events == [(what, place) for place in places for what in ("made", "given")]


def test_those_that_are_there_come_in_their_places(tmp_path) -> None:
    one = checker(tmp_path, SIZED)
    prepare_pieces(SIZED, RowKind.SFT, tmp_path, data=DataPrep(), seed=0)
    there = find_pieces(tmp_path)
    for key in ((0, 0), (1, 0)):
        there.pop(key).unlink()
    with Workers(one) as workers:
        events = came(Plan(one, 0, 1, there), workers)
    given = [("given", place) for place in [(0, 0), (0, 1), (0, 2)]]
    assert events == [("made", (0, 0)), *given, ("made", (1, 0)), ("given", (1, 0))]


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1])
@pytest.mark.parametrize("shards", [1, 2])
def test_of_streams_the_end_is_waited_for(tmp_path, made_source, make_row, size, shards) -> None:
    """A stream before sources of known size, which are made first."""
    question = [{"role": "user", "content": "What?"}]
    stream = made_source([make_row(number=n, images=[], prompt=question) for n in range(size)])
    sources = [stream, *SIZED]
    found = []
    for shard in range(shards):
        folder = tmp_path / str(shard)
        folder.mkdir()
        one = checker(folder, sources)
        with Workers(one) as workers:
            events = came(Plan(one, shard, shards, {}), workers)
        given = [place for what, place in events if what == "given"]
        assert given == sorted(place for what, place in events if what == "made")
        found += given
    blocks = [-(-size // BLOCK), 3, 1]
    assert sorted(found) == [(n, block) for n, count in enumerate(blocks) for block in range(count)]
