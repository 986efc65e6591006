"""Folders of sampled pairs, written by a checkpoint that is really asked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from siqvl.check import check_sampled
from siqvl.data.manifest import Manifest
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.evaluation.scoring.scorers.exact_match import exact_match
from siqvl.generation.completions import Completion
from siqvl.preferences import sample_pairs
from siqvl.preferences.sample_pairs import SampledFolders, add_sampled_pairs
from siqvl.preferences.statistics import Sampling
from siqvl.recipe import Recipe, Source, Stage
from siqvl.training.prepared_sources import sources_of
from siqvl.training.stage import train_stage
from tests.quick import children

TEXTS = ("id", "prompt", "chosen", "rejected", "source", "meta")


@pytest.fixture(scope="module")
def benchmarks(trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one prepared benchmark, `vqa`: the first 12 test pictures."""
    folder = tmp_path_factory.mktemp("benchmarks")
    (benchmark,) = trained.recipe.evaluation.benchmarks
    data = trained.recipe.data
    prepare([benchmark.source], RowKind.EVALUATION, folder / benchmark.name, data=data, seed=0)
    return folder


@pytest.fixture(scope="module")
def add(trained, benchmarks: Path) -> Callable[..., SampledFolders]:
    def add(recipe: Recipe, out: Path, **changes: Path) -> SampledFolders:
        given = {
            "checkpoint": trained.checkpoint(Stage.COT_SFT),
            "data": trained.data(Stage.DPO),
            "benchmarks": benchmarks,
        }
        return add_sampled_pairs(recipe, **(given | changes), out=out)

    return add


@pytest.fixture(scope="module")
def made(
    add, sampling_recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, SampledFolders]:
    recipe = sampling_recipe()
    return recipe, add(recipe, tmp_path_factory.mktemp("made"))


def rows_of(folder: Path) -> list[dict]:
    return load_prepared(folder, RowKind.PREFERENCE)[0].select_columns(list(TEXTS)).to_list()


def answer_of(completion: list[dict]) -> str:
    return completion[-1]["content"]


def test_sampled_pairs_follow_the_constructed_ones(trained, made) -> None:
    recipe, folders = made
    given, before = load_prepared(trained.data(Stage.DPO), RowKind.PREFERENCE)
    stored, after = load_prepared(folders.data, RowKind.PREFERENCE)
    pairs = len(stored) - len(given)
    assert pairs > 0
    assert after.rows_of_sources == [*before.rows_of_sources, pairs]
    assert after.sources == [*before.sources, recipe.stages.dpo.sampled.source]
    assert after.fingerprint != before.fingerprint
    columns = [*TEXTS, "image_hashes"]
    kept = stored.select(range(len(given)))
    assert kept.select_columns(columns).to_list() == given.select_columns(columns).to_list()
    assert kept[0]["images"][0].tobytes() == given[0]["images"][0].tobytes()
    assert after.rows_by_source["sampled shapes/vqa"] == pairs


@pytest.mark.parametrize("held_out", [False, True])
def test_the_chosen_answer_is_right_and_the_rejected_one_wrong(made, held_out: bool) -> None:
    recipe, folders = made
    rows = rows_of(folders.benchmarks / "pairs" if held_out else folders.data)
    sampled = [row for row in rows if row["source"].startswith("sampled ")]
    assert len(sampled) == len(rows) if held_out else len(sampled) < len(rows)
    source = recipe.evaluation.benchmarks[-1].source if held_out else None
    asked = questions(source or recipe.stages.dpo.sampled.source)
    for row in sampled:
        about = json.loads(row["meta"])
        question = asked[about["question"]]
        assert row["prompt"] == [{"role": "user", "content": question["question"]}]
        assert exact_match(answer_of(row["chosen"]), question["answers"])
        assert not exact_match(answer_of(row["rejected"]), question["answers"])
    per_question = [json.loads(row["meta"])["question"] for row in sampled]
    assert 1 <= max(map(per_question.count, per_question)) <= 2  # max_pairs


def questions(source: Source) -> dict[str, dict]:
    from siqvl.data import sources

    return {row["id"]: row for row in sources.rows(source, RowKind.EVALUATION, 0)}


def test_statistics_and_reports_add_up(made) -> None:
    _, folders = made
    for folder, asked in ((folders.data, 40), (folders.benchmarks / "pairs", 30)):
        found, manifest = Sampling.read(folder), Manifest.read(folder)
        assert (found.questions, found.completions) == (asked, asked * 6)
        assert found.pairs == manifest.rows_of_sources[-1]
        without = found.questions_without_right + found.questions_without_wrong
        assert found.questions_with_pairs + without == asked
        assert sum(manifest.left_out.values()) == without
        assert found.right + found.wrong == found.completions  # exact match, endings aside
        assert not manifest.quarantined
        page = (folder / "sampling.html").read_text()
        assert page.count("<img") == min(12, found.pairs)
        assert "http" not in page
        assert found.metrics("x")["sampling/x/right_share"] == found.right / found.completions


def test_benchmarks_are_handed_on_beside_the_sampled_one(made, benchmarks: Path) -> None:
    _, folders = made
    assert sorted(path.name for path in folders.benchmarks.iterdir()) == ["pairs", "vqa"]
    for file in (benchmarks / "vqa").rglob("*"):
        copy = folders.benchmarks / file.relative_to(benchmarks)
        assert copy.is_dir() if file.is_dir() else copy.read_bytes() == file.read_bytes()
    assert load_prepared(folders.benchmarks / "vqa", RowKind.EVALUATION)


def test_two_reruns_at_once_give_the_same_rows(
    trained, benchmarks: Path, made, add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins when the first is about to write what it sampled, and ends before."""
    recipe, folders = made
    write, exits = sample_pairs.write_prepared, []

    def meanwhile(*arguments, **options):
        if not exits:
            given = trained.checkpoint(Stage.COT_SFT), trained.data(Stage.DPO), benchmarks
            named = dict(zip(("checkpoint", "data", "benchmarks"), given, strict=True))
            named["out"] = tmp_path
            other = children.Process(target=add_sampled_pairs, args=(recipe,), kwargs=named)
            exits.append(other.start())
            other.join()
            exits.append(other.exitcode)
        return write(*arguments, **options)

    monkeypatch.setattr(sample_pairs, "write_prepared", meanwhile)
    again = add(recipe, tmp_path)
    assert exits == [None, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dpo", "evaluation"]
    for one, other in zip(folders.sampled, again.sampled, strict=True):
        assert Manifest.read(one).fingerprint == Manifest.read(other).fingerprint
        assert Sampling.read(one) == Sampling.read(other)


def test_dpo_trains_on_all_of_them_with_the_weight_of_the_recipe(
    trained, made, tmp_path: Path
) -> None:
    recipe, folders = made
    card = train_stage(
        Stage.DPO,
        recipe,
        data=folders.data,
        checkpoint=trained.checkpoint(Stage.COT_SFT),
        output=tmp_path / "dpo",
    )
    assert card.data_fingerprint == Manifest.read(folders.data).fingerprint
    shown = [card.metrics[f"data/source {name}/rows"] for name in ("0 shapes", "1 sampled shapes")]
    assert sum(shown) == 2 * 4  # steps times pairs
    manifest = Manifest.read(folders.data)
    assert [source.weight for source in sources_of(recipe.stages.dpo, manifest)] == [1.0, 0.5]


def test_dpo_refuses_rows_without_the_sampled_ones(
    trained, sampling_recipe, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"rows of 1 sources, .* names 2 .* preference_pairs"):
        train_stage(
            Stage.DPO,
            sampling_recipe(),
            data=trained.data(Stage.DPO),
            checkpoint=trained.checkpoint(Stage.COT_SFT),
            output=tmp_path / "dpo",
        )


def test_without_sampled_pairs_everything_stays_where_it_is(
    trained, add, benchmarks: Path, tmp_path: Path
) -> None:
    folders = add(trained.recipe, tmp_path / "out")
    assert folders == SampledFolders(trained.data(Stage.DPO), benchmarks, [])
    assert not (tmp_path / "out").exists()


def answered(monkeypatch: pytest.MonkeyPatch, texts: Callable[[dict], list[str]]) -> None:
    """Stands in for the model: every question gets these completions."""

    def sample(model, processor, rows, settings, *, seed, progress):
        progress(len(rows))
        return [[Completion(text, True) for text in texts(row)] for row in rows]

    monkeypatch.setattr("siqvl.preferences.sampled_rows.sample", sample)
    monkeypatch.setattr("siqvl.generation.completions.load_to_answer", lambda *asked: (None, None))


def test_pictures_of_benchmarks_are_left_out(
    add, sampling_recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Test scene i is the same however many are drawn: 12 of 40 are those of `vqa`, and 30 of them
    those of the sampled benchmark, which counts as well."""
    answered(monkeypatch, lambda row: [row["answers"][0], "nothing of the kind"])
    source = {"kind": "shapes", "subsets": ["vqa"], "split": "test", "max_samples": 40}
    alone = add(sampling_recipe(benchmark=False, source=source), tmp_path / "alone")
    assert Manifest.read(alone.data).rows_of_sources == [24, 28]
    assert Manifest.read(alone.data).left_out == {"picture of benchmark vqa": 12}
    assert Sampling.read(alone.data).pairs == 28
    both = add(sampling_recipe(source=source), tmp_path / "both")
    assert Manifest.read(both.data).rows_of_sources == [24, 10]


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (lambda row: ["never", "ever"], "30 never right and 0 always right"),
        (lambda row: [row["answers"][0]] * 2, "0 never right and 30 always right"),
    ],
)
def test_a_benchmark_without_pairs_is_an_error_that_leaves_nothing(
    add, sampling_recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, texts, told: str
) -> None:
    answered(monkeypatch, texts)
    with pytest.raises(UserError, match=f"`pairs` ends with no pair: of 30 questions .* {told}"):
        add(sampling_recipe(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_training_goes_on_without_pairs_and_says_so(
    add, sampling_recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog
) -> None:
    answered(monkeypatch, lambda row: ["never", "ever"])
    folders = add(sampling_recipe(benchmark=False), tmp_path)
    manifest = Manifest.read(folders.data)
    assert manifest.rows_of_sources == [24, 0]
    assert manifest.left_out == {"no sampled completion is right": 40}
    assert "none of 40 questions gave a pair" in caplog.text


def test_what_is_wrong_is_told_before_the_model_is_loaded(
    trained, add, sampling_recipe, made, tmp_path: Path
) -> None:
    recipe, folders = made
    with pytest.raises(UserError, match="is of stage `vqa_sft`"):
        add(recipe, tmp_path, checkpoint=trained.checkpoint(Stage.VQA_SFT))
    with pytest.raises(UserError, match=r"rows of 2 sources, but stage `dpo` .* names 1"):
        add(recipe, tmp_path, data=folders.data)
    with pytest.raises(UserError, match="unknown split `nowhere`"):
        check_sampled(sampling_recipe(source={"kind": "shapes", "split": "nowhere"}))
    content = recipe.model_dump(mode="json")
    content["stages"]["dpo"]["sampled"] = None
    with pytest.raises(UserError, match="`pairs` consists of sampled pairs"):
        check_sampled(Recipe.model_validate(content))
    foreign = tmp_path / "dpo"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is no prepared data"):
        add(recipe, tmp_path)
    assert (foreign / "thesis.txt").exists()
