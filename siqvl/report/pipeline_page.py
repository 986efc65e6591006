"""`report.html`: one file that needs no other, no script and no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from siqvl.checkpoint import CheckpointCard, read_card, read_history
from siqvl.evaluation.gates.verdict import Verdict
from siqvl.evaluation.scoring.scores import Scores
from siqvl.recipe import Benchmark, Recipe
from siqvl.report.curves import loss_curve
from siqvl.report.gate_cards import banner, gate_cards
from siqvl.report.page_pictures import pictures_of
from siqvl.report.page_questions import Sample, pick_samples
from siqvl.report.question_types import type_table
from siqvl.report.sample_cards import sample_cards
from siqvl.report.score_charts import Line, by_benchmark, score_bars, stage_rows
from siqvl.stages import STAGES

PAGE = "report.html"


def write_page(
    recipe: Recipe,
    out: Path,
    *,
    run: str,
    checkpoints: Sequence[Path],
    reports: Sequence[Path],
    benchmarks: Path,
    verdicts: Sequence[Verdict],
) -> None:
    """Write `out/report.html`.

    Args:
        run: name of the pipeline's run.
        checkpoints: checkpoint directories of the stages, in order.
        reports: EvalReport directories, that of the control among them.
        benchmarks: what `prepare_benchmarks` wrote, for the pictures.
        verdicts: of the recipe's gates.
    """
    scored = sorted(
        ((Scores.read(report), report) for report in reports),
        key=lambda pair: (list(STAGES).index(pair[0].stage), pair[0].random_tower),
    )
    trained = [(read_card(checkpoint), checkpoint) for checkpoint in checkpoints]
    samples = pick_samples(
        [pair for pair in scored if not pair[0].random_tower], recipe.evaluation.report_pictures
    )
    template = Template(files("siqvl.report").joinpath("page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(f"SiQ-VL: {recipe.name}, {run}"),
        recipe=escape(recipe.name),
        run=escape(run),
        banner=banner(verdicts),
        gates=gate_cards(verdicts),
        scores=_scores([scores for scores, _ in scored], recipe),
        curves="".join(loss_curve(card, read_history(path)) for card, path in trained),
        pictures=sample_cards(samples, _pictures(samples, benchmarks)),
        origin=_origin([card for card, _ in trained], recipe),
    )
    (out / PAGE).write_text(page, encoding="utf-8")


def is_held_out(benchmark: Benchmark) -> bool:
    """Whether a benchmark shows what no training picture does, by its split or its name."""
    return any(
        "heldout" in name.replace("-", "").replace("_", "").lower()
        for name in (benchmark.name, benchmark.source.split)
    )


def _scores(reports: list[Scores], recipe: Recipe) -> str:
    """Bars, table and types; held-out combinations apart, whatever they show."""
    names = {benchmark.name: is_held_out(benchmark) for benchmark in recipe.evaluation.benchmarks}
    usual = by_benchmark(reports, [name for name, held_out in names.items() if not held_out])
    held_out = by_benchmark(reports, [name for name, held_out in names.items() if held_out])
    parts = [score_bars(usual)]
    if held_out:
        parts.append(
            "<h2 id=held-out>Held out</h2><p class=lead>What no training picture shows, reported "
            f"apart.</p>{score_bars(held_out)}"
        )
    parts.append(f"<h2 id=table>All figures</h2>{stage_rows(usual | held_out)}")
    parts.append(_types(usual | held_out))
    return "".join(parts)


def _types(lines: dict[str, list[Line]]) -> str:
    table = type_table(lines)
    return f"<h2 id=types>By type of question</h2>{table}" if table else ""


def _pictures(samples: Sequence[Sample], benchmarks: Path) -> dict[tuple[str, str], list[str]]:
    """Pictures of the samples, each benchmark read once."""
    wanted: dict[str, list[str]] = {}
    for sample in samples:
        wanted.setdefault(sample.question["benchmark"], []).append(sample.question["id"])
    return {
        (name, id): uris
        for name, ids in wanted.items()
        for id, uris in pictures_of(benchmarks / name, set(ids)).items()
    }


def _origin(cards: list[CheckpointCard], recipe: Recipe) -> str:
    """Where every checkpoint is from."""
    rows = "".join(
        f"<tr><th scope=row>{escape(STAGES[card.stage].title)}</th>"
        f"<td><code>{card.hash[:12]}</code></td><td><code>{(card.parent or '–')[:12]}</code></td>"
        f"<td><code>{escape(card.data_fingerprint[:12])}</code></td>"
        f"<td><code>{escape(card.code_version[:20])}</code></td></tr>"
        for card in cards
    )
    return (
        f"<p class=lead>Recipe <code>{escape(recipe.hash()[:12])}</code>, seed {recipe.seed}.</p>"
        '<div class=scroll role=region aria-label="Origin of the checkpoints" tabindex=0><table>'
        "<thead><tr><th scope=col>stage</th><th scope=col>checkpoint</th>"
        "<th scope=col>continues from</th><th scope=col>data</th><th scope=col>code</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div>"
    )
