"""Sample preference pairs from the checkpoint DPO starts from, to train on and to score."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.check import check_sampled
from siqvl.checkpoint import verify_checkpoint
from siqvl.data.manifest import FILE_NAME, Manifest
from siqvl.data.preparation.checks import Checked
from siqvl.data.preparation.data_page import example
from siqvl.data.preparation.distinct_pictures import HeldOut
from siqvl.data.preparation.merge import refuse_foreign
from siqvl.data.schema import Row
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.evaluation.benchmarks.held_out import held_out
from siqvl.evaluation.scoring.scorers import scorer
from siqvl.files import atomic_folder, link_or_copy
from siqvl.preferences.pairs_page import EXAMPLES, PAGE, render_page
from siqvl.preferences.prepared import KIND, PreparedRows, write_prepared
from siqvl.preferences.statistics import STATISTICS, Counts, Sampling
from siqvl.recipe import Benchmark, Recipe, SampledPairs, Stage
from siqvl.stages import STAGES

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampledFolders:
    """Where the rows are now, and which folders hold sampled pairs, their statistics and page."""

    data: Path
    benchmarks: Path
    sampled: list[Path]


def sampled_folders(recipe: Recipe, *, data: Path, benchmarks: Path, out: Path) -> SampledFolders:
    """The folders that `add_sampled_pairs` leaves."""
    if recipe.stages.dpo.sampled is None:
        return SampledFolders(data, benchmarks, [])
    place, target = out / "evaluation", out / Stage.DPO.value
    sampled = [place / one.name for one in recipe.evaluation.benchmarks if one.sampled]
    return SampledFolders(target, place if sampled else benchmarks, [*sampled, target])


def add_sampled_pairs(
    recipe: Recipe, *, checkpoint: Path, data: Path, benchmarks: Path, out: Path
) -> SampledFolders:
    """Samples what the recipe's `stages.dpo.sampled` and sampled benchmarks ask for.

    `out/dpo` gets the rows of `data` and after them the sampled pairs, as one more source;
    `out/evaluation` the folders of `benchmarks` and one more for each sampled benchmark. What
    nothing is added to stays where it is.

    Args:
        checkpoint: the one that DPO continues from.
        data: prepared `dpo` rows.
        benchmarks: folder of prepared benchmarks, whose pictures are not trained on.

    Raises:
        UserError: the recipe, the checkpoint or the data is not what is needed; or a sampled
            benchmark ends with no pair. Nothing that was there is changed then.
    """
    from siqvl.device import answering_precision
    from siqvl.generation.completions import load_to_answer
    from siqvl.preferences.sampled_rows import sampled_rows

    check_sampled(recipe)
    settings = recipe.stages.dpo.sampled
    folders = sampled_folders(recipe, data=data, benchmarks=benchmarks, out=out)
    if settings is None:
        return folders
    card = verify_checkpoint(checkpoint, expected=STAGES[Stage.DPO].parents)
    given = PreparedRows(data)
    _check_sources(given.manifest, recipe, data)
    wanted = [benchmark for benchmark in recipe.evaluation.benchmarks if benchmark.sampled]
    for folder in (out / Stage.DPO.value, out / "evaluation"):
        _refuse(folder)

    model, processor = load_to_answer(
        checkpoint, recipe.model.attention, answering_precision(recipe, card.stage)
    )
    ask = functools.partial(sampled_rows, model, processor, recipe, settings)
    writer = _Writer(ask, recipe, settings, card.hash)
    if wanted:
        with atomic_folder(folders.benchmarks) as partial:
            _copy_benchmarks(benchmarks, partial, recipe)
            for benchmark in wanted:
                writer.benchmark(benchmark, partial / benchmark.name)
    writer.training(given, folders.benchmarks, folders.data)
    return folders


@dataclass(frozen=True)
class _Writer:
    """Writes folders of sampled pairs, with their statistics and page."""

    ask: Callable[..., Iterator[Checked]]  # `sampled_rows` of the loaded checkpoint
    recipe: Recipe
    settings: SampledPairs
    checkpoint: str  # its hash

    def benchmark(self, benchmark: Benchmark, out: Path) -> None:
        """Writes pairs about the held-out questions of a benchmark, and nothing else."""
        counts, data, seed = Counts(), self.recipe.data, self.recipe.seed
        rows = self.ask(benchmark.source, counts, title=f"sample {benchmark.name}")
        try:
            manifest = write_prepared(
                [(benchmark.source, rows)], out, data=data, seed=seed, benchmarks=HeldOut()
            )
        except UserError as error:
            if counts.questions_with_pairs or not counts.questions:
                raise
            raise UserError(
                f"benchmark `{benchmark.name}` ends with no pair: of {counts.questions} questions "
                f"the checkpoint answered {counts.questions_without_right} never right and "
                f"{counts.questions_without_wrong} always right; take more questions or `samples`, "
                "or another temperature, in stages.dpo.sampled"
            ) from error
        self._describe(out, manifest, counts)

    def training(self, given: PreparedRows, benchmarks: Path, out: Path) -> None:
        """Writes the given rows, and pairs about the training questions after them."""
        counts, data, seed = Counts(), self.recipe.data, self.recipe.seed
        source = self.settings.source
        rows = self.ask(source, counts, title="sample preference pairs")
        manifest = write_prepared(
            [*given.of_sources(data, seed), (source, rows)],
            out,
            data=data,
            seed=seed,
            benchmarks=held_out(self.recipe, benchmarks),
        )
        if not manifest.rows_of_sources[-1]:
            logger.warning(
                "none of %d questions gave a pair to train on: %d had no right completion, %d no "
                "wrong one",
                counts.questions,
                counts.questions_without_right,
                counts.questions_without_wrong,
            )
        self._describe(out, manifest, counts)

    def _describe(self, folder: Path, manifest: Manifest, counts: Counts) -> None:
        sampling = Sampling(
            checkpoint=self.checkpoint,
            settings=self.settings,
            scorer=scorer(self.settings.scorer).label,
            seed=self.recipe.seed,
            pairs=manifest.rows_of_sources[-1],
            **asdict(counts),
        )
        dataset, _ = load_prepared(folder, KIND, verify=False)
        examples = _examples(dataset, sampling.pairs)
        page = render_page(folder.name, sampling, examples)
        (folder / PAGE).write_text(page, encoding="utf-8")
        (folder / STATISTICS).write_text(sampling.model_dump_json(indent=2) + "\n", "utf-8")


def _examples(dataset: Dataset, pairs: int) -> list[Row]:
    """Some of the last `pairs` rows, spread over all of them."""
    shown = min(EXAMPLES, pairs)
    first = len(dataset) - pairs
    places = [first + index * pairs // shown for index in range(shown)]
    stored = dataset.with_format("arrow")
    return [example(stored[place : place + 1].to_pylist()[0]) for place in places]


def _check_sources(manifest: Manifest, recipe: Recipe, data: Path) -> None:
    expected = recipe.stages.dpo.sources
    if len(manifest.sources) != len(expected):
        raise UserError(
            f"{data} has rows of {len(manifest.sources)} sources, but stage `dpo` of the recipe "
            f"names {len(expected)}; pass what data_prep --stage dpo made with this recipe"
        )
    manifest.in_order(expected, str(data))


def _refuse(folder: Path) -> None:
    """Raise UserError if something else than what is written here is in a place."""
    if folder.name == Stage.DPO.value:
        refuse_foreign(folder)
    elif folder.exists() and not (folder.is_dir() and any(folder.glob(f"*/{FILE_NAME}"))):
        raise UserError(f"{folder} exists and holds no benchmarks; choose another folder")


def _copy_benchmarks(given: Path, out: Path, recipe: Recipe) -> None:
    """The recipe's benchmarks as hard links where the disk allows: they never change in place."""
    for benchmark in recipe.evaluation.benchmarks:
        path = given / benchmark.name
        if path.is_dir() and not benchmark.sampled:
            shutil.copytree(path, out / path.name, copy_function=link_or_copy)
