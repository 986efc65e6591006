"""Load, faults and large pictures, on one server.

    python -m benchmarks.serving --against FOLDER    # 32 clients, 3,000 requests; 50m
    python -m benchmarks.serving --model tiny --requests 300

FOLDER is a checkout whose registered model (`pyfunc`) answers a part of the requests one after the
other, before the load and after it. Every request about one picture is asked alone first, and what
it is told under load has to be the same. `50m` needs SIQVL_REAL_DATA, see benchmarks/training.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.serving.asked import Question, large_pictures, of_all_kinds, with_one_picture
from benchmarks.serving.broken import misbehave
from benchmarks.serving.clients import Told, ask_all
from benchmarks.serving.model import made_checkpoint
from benchmarks.serving.server import Server
from siqvl.text_table import text_table

NAME = "served"
#: More pictures than the engine keeps the tokens of, asked in turns: each is read anew.
DIFFERENT = 160
PARTS = ("load", "kinds", "faults", "kill", "pictures")
PROGRAM = Path(__file__).with_name("pyfunc_once.py")


@click.command()
@click.option("--against", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", type=click.Choice(["tiny", "50m", "full"]), default="50m")
@click.option("--clients", default=32)
@click.option("--requests", "count", default=3_000)
@click.option("--different", default=DIFFERENT, help="requests among them")
@click.option("--alone", default=30, help="requests that FOLDER's model answers, each time")
@click.option("--large", default=16, help="requests with a picture of 49 megapixels each")
@click.option("--what", "parts", multiple=True, type=click.Choice(PARTS), default=PARTS)
@click.option("--work", type=click.Path(path_type=Path), help="keeps the checkpoint")
def main(work: Path | None, **options: Any) -> None:
    """Measure a server."""
    about = f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores"
    click.echo(f"{about}, Python {platform.python_version()}, model {options['model']}")
    with tempfile.TemporaryDirectory() as scratch:
        measure(work or Path(scratch), Path(scratch), **options)


def measure(
    work: Path,
    scratch: Path,
    *,
    against: Path | None,
    model: Any,
    clients: int,
    count: int,
    different: int,
    alone: int,
    large: int,
    parts: Sequence[str],
) -> None:
    """Runs one part after the other, and prints each."""
    checkpoint = made_checkpoint(model, work)
    server = Server(
        checkpoint, scratch, "--name", NAME, "--places", f"{clients}", "--body-seconds", "2"
    )
    click.echo(f"ready after {server.start():.1f} s, {server.mib():,.0f} MiB")
    questions = with_one_picture(different)
    try:
        single = []
        if {"load", "faults", "kill"} & {*parts}:
            single = _asked(server, questions, 1)
            _complain(single)
        if "load" in parts:
            before = pyfunc(against, checkpoint, questions[:alone], scratch) if against else None
            used = server.cpu_seconds()
            told = load(server, questions, single, clients, count)
            used = server.cpu_seconds() - used
            if against and before:
                after = pyfunc(against, checkpoint, questions[alone : 2 * alone], scratch)
                beside(told, used, [before, after], single)
        if "kinds" in parts:
            all_kinds(server, min(150, different), clients)
        if "faults" in parts:
            faults(server, questions[:60], single, clients)
        if "kill" in parts:
            killed(server, questions, single, clients)
        if "pictures" in parts:
            megapixels(server, large)
        click.echo(f"SIGTERM: exit code {server.end()}; faults in the log: {len(server.faults())}")
    finally:
        if server.process and server.process.poll() is None:
            server.end(signal.SIGKILL)


def load(
    server: Server, questions: Sequence[Question], single: Sequence[Told], clients: int, count: int
) -> list[Told]:
    """The load itself: all of them in turns, against what each was told alone."""
    asked = [questions[number % len(questions)] for number in range(count)]
    start = time.monotonic()
    told = _asked(server, asked, clients)
    took = time.monotonic() - start
    _complain(told)
    differ = _differing(told, single)
    tokens = sum(one.tokens for one in told)
    lines = [("", "p50, s", "p95, s", "p99, s")]
    lines.append(("whole answer", *_shares([one.seconds for one in told])))
    first = [one.first_seconds for one in told if one.first_seconds]
    lines.append(("first text of a stream", *_shares(first)))
    click.echo(
        f"\n{clients} clients, {count:,} requests of 1 to {max(q.tokens for q in asked)} tokens: "
        f"{took:.0f} s, {count / took:.1f} requests/s, {tokens:,} tokens, {tokens / took:,.0f} "
        f"tokens/s\nerrors: {sum(bool(one.error) for one in told)}, answers that differ from the "
        f"single one: {differ}; load average {os.getloadavg()[0]:.1f}"
    )
    click.echo("\n".join(text_table(lines, left=(0,))))
    ended = sorted(one.ended for one in told)
    _memory(server, ended, count // 3)
    return told


def _differing(told: Sequence[Told], single: Sequence[Told]) -> int:
    """Counts answers that are others than when they were asked for alone."""
    return sum(one.text != single[one.number % len(single)].text for one in told)


def _memory(server: Server, ended: list[float], first: int) -> None:
    """What the server held over the last two thirds of a load."""
    halfway = (ended[first] + ended[-1]) / 2
    earlier = [mib for at, mib in server.held if ended[first] <= at < halfway]
    later = [mib for at, mib in server.held if halfway <= at <= ended[-1]]
    click.echo(
        f"memory over the last {len(ended) - first:,} requests: {min(earlier + later):,.0f} to "
        f"{max(earlier + later):,.0f} MiB, median of their first half "
        f"{statistics.median(earlier):,.0f}, of their second {statistics.median(later):,.0f}"
    )


def pyfunc(
    build: Path, checkpoint: Path, questions: Sequence[Question], scratch: Path
) -> dict[str, Any]:
    """What the registered model of another build answers, one request after the other.

    Raises:
        ClickException: it failed.
    """
    rows = scratch / "rows.json"
    rows.write_text(json.dumps([{"row": one.row(), "tokens": one.tokens} for one in questions]))
    done = subprocess.run(
        [sys.executable, "-P", PROGRAM, checkpoint, rows],
        env=os.environ | {"PYTHONPATH": str(build.resolve())},
        cwd=build,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(done.stderr[-2_000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for file in found["files"]:
        if not Path(file).is_relative_to(build.resolve()):
            raise click.ClickException(f"{file} answered, not {build}")
    return found


def beside(
    told: Sequence[Told],
    cpu_seconds: float,
    others: Sequence[dict[str, Any]],
    single: Sequence[Told],
) -> None:
    """Tokens a second of the load beside those of one request after the other."""
    texts = [text for one in others for text in one["texts"]]
    tokens = sum(one.tokens for one in single[: len(texts)])
    differ = sum(text != one.text for text, one in zip(texts, single, strict=False))
    ours = sum(one.tokens for one in told)
    took = max(one.ended for one in told) - min(one.ended - one.seconds for one in told)
    lines = [("", "requests", "tokens/s", "tokens/CPU s")]
    rates = []
    for name, count, written, seconds, busy in (
        (
            "the other build's pyfunc, one after the other",
            len(texts),
            tokens,
            sum(one["seconds"] for one in others),
            sum(one["cpu_seconds"] for one in others),
        ),
        ("the server", len(told), ours, took, cpu_seconds),
    ):
        rates.append((written / seconds, written / busy))
        lines.append((name, f"{count:,}", f"{rates[-1][0]:,.1f}", f"{rates[-1][1]:,.1f}"))
    ratios = [theirs and mine / theirs for theirs, mine in zip(*rates, strict=True)]
    lines.append(("ratio", "", *(f"{ratio:.2f}" for ratio in ratios)))
    click.echo("\n".join(text_table(lines, left=(0,))))
    click.echo(f"answers of the pyfunc that differ from the single one: {differ}")


def all_kinds(server: Server, count: int, clients: int) -> None:
    """Text alone, several pictures, several turns."""
    questions = of_all_kinds(count)
    single = _asked(server, questions, 1)
    told = _asked(server, questions * 2, clients)
    _complain(single + told)
    differ = _differing(told, single)
    click.echo(
        f"\ntext alone, 3 pictures, 3 turns: {len(told)} requests, errors: "
        f"{sum(bool(one.error) for one in told)}, different: {differ}"
    )


def faults(
    server: Server, questions: Sequence[Question], single: Sequence[Told], clients: int
) -> None:
    """Slow and broken clients beside good ones."""

    async def both() -> tuple[list[Told], int]:
        until = asyncio.Event()
        bad = asyncio.create_task(misbehave(server.port, NAME, questions[0], until))
        told = await ask_all(server.address, NAME, list(questions) * 3, clients, tries=20)
        until.set()
        return told, await bad

    told, connections = asyncio.run(both())
    _complain(told)
    differ = _differing(told, single[: len(questions)])
    end = time.monotonic() + 30
    while server.metric("siqvl_inside") or server.metric("siqvl_running"):
        if time.monotonic() > end:
            raise click.ClickException("requests of clients that are gone are still inside")
        time.sleep(0.2)
    click.echo(
        f"beside {connections} slow and broken connections: {len(told)} requests, errors: "
        f"{sum(bool(one.error) for one in told)}, different: {differ}; then nothing is left inside"
    )


def killed(
    server: Server, questions: Sequence[Question], single: Sequence[Told], clients: int
) -> None:
    """SIGKILL within a load, and another start; clients ask again."""

    async def all_of_it() -> tuple[list[Told], float]:
        some: list[Told] = []
        asking = asyncio.create_task(
            ask_all(server.address, NAME, questions, clients, tries=200, told=some)
        )
        while len(some) < len(questions) // 4:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.end, signal.SIGKILL)
        seconds = await asyncio.to_thread(server.start)
        return await asking, seconds

    told, seconds = asyncio.run(all_of_it())
    _complain(told)
    again = sum(one.tries > 1 for one in told)
    differ = _differing(told, single)
    click.echo(
        f"kill -9 within {len(told)} requests: ready again after {seconds:.1f} s, {again} asked "
        f"again, errors: {sum(bool(one.error) for one in told)}, different: {differ}"
    )


def megapixels(server: Server, count: int) -> None:
    """Pictures of 49 megapixels, all at the same time, and all in one request."""
    questions = large_pictures(count)
    together = Question(
        ("what are they?",), tuple(uri for one in questions for uri in one.pictures), 8
    )
    for name, asked in (("at once", questions), ("in one request", [together])):
        time.sleep(1)
        idle, start = server.mib(), time.monotonic()
        told = _asked(server, asked, len(asked))
        _complain(told)
        peak = max(mib for at, mib in server.held if at >= start)
        click.echo(
            f"{count} pictures of 49 megapixels {name}: {time.monotonic() - start:.0f} s, errors: "
            f"{sum(bool(one.error) for one in told)}, at most {peak - idle:,.0f} MiB above idle "
            f"({idle:,.0f})"
        )


def _asked(server: Server, questions: Sequence[Question], clients: int) -> list[Told]:
    return asyncio.run(ask_all(server.address, NAME, questions, clients))


def _complain(told: Sequence[Told]) -> None:
    """Shows the first errors, if there are any."""
    for one in [one for one in told if one.error][:3]:
        click.echo(f"request {one.number}: {one.error}", err=True)


def _shares(seconds: Sequence[float]) -> tuple[str, ...]:
    ordered = sorted(seconds)
    return tuple(
        f"{ordered[min(len(ordered) - 1, int(len(ordered) * q))]:.2f}" for q in (0.5, 0.95, 0.99)
    )


if __name__ == "__main__":
    main()
