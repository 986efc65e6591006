"""`~` at the front of a path is the home folder, under every key of a recipe that names a path."""

from pathlib import Path

import pytest

from siqvl.check import check_model
from siqvl.data.features.build_features import features_folder
from siqvl.data.sources.base import resolve
from siqvl.files import expanded
from siqvl.look.recipe_processor import local_processor
from siqvl.recipe import Recipe, Source
from siqvl.tracking.outbox import outbox_place
from siqvl.tracking.store import tracking_uri
from siqvl.training.stage_process import _load_model
from tasks import contracts
from tests.small_recipe import small_recipe

TINY_BASE = Path(__file__).parents[2] / "recipes" / "tiny_base"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tiny_base").symlink_to(TINY_BASE)
    return tmp_path


def changed(folder: Path, **sections: dict) -> Recipe:
    content = small_recipe(folder).model_dump(mode="json")
    for name, section in sections.items():
        content[name] = content[name] | section if isinstance(section, dict) else section
    return Recipe.model_validate(content)


def test_what_a_run_writes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = changed(home, output_dir="~/outputs")
    assert contracts.workspace(recipe, contracts.ALONE) == home / "outputs" / "tiny" / "single"
    assert outbox_place(recipe).folder == home / "outputs" / "spool"
    assert features_folder(recipe) == home / "outputs" / "features"
    assert recipe.output_dir == "~/outputs"  # its hash is the same in every home
    named = changed(home, features_dir="~/features", tracking={"spool": "~/spool"})
    assert outbox_place(named).folder == home / "spool"
    assert features_folder(named) == home / "features"
    shared = {"enabled": True, "nodes": 2, "shared_dir": "~/shared"}
    monkeypatch.setattr(contracts, "on_cluster", lambda: True)
    several = changed(home, distributed=shared)
    place = contracts.shared_workspace(several, contracts.PipelineRun(name="one"))
    assert place == home / "shared" / "siqvl" / "tiny" / "one"
    assert features_folder(several, machines=2) == home / "shared" / "features"
    assert features_folder(several) == home / "outputs" / "features"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///~/a.db", "sqlite:///{home}/a.db"),
        ("file://~/runs", "file://{home}/runs"),
        ("~/runs", "{home}/runs"),
        ("sqlite:///a~/b.db", "sqlite:///a~/b.db"),
        ("https://example.org/~me", "https://example.org/~me"),
    ],
)
def test_the_store(home: Path, monkeypatch: pytest.MonkeyPatch, uri: str, expected: str) -> None:
    expected = expected.format(home=home)
    assert tracking_uri(changed(home, tracking={"uri": uri})) == expected
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri(changed(home, tracking={"uri": None})) == expected


def test_weights(home: Path) -> None:
    parts = {part: f"~/tiny_base/{part}" for part in ("vision", "language")}
    recipe = changed(home, model=parts)
    check_model(recipe.model)
    processor, why = local_processor(recipe)
    assert processor is not None, why
    model, _ = _load_model(recipe, None, "eager")
    assert sum(weights.numel() for weights in model.parameters()) > 0


def test_sources(home: Path) -> None:
    source = resolve(Source(kind="table", path="~/rows.csv", pictures="~/pictures"))
    assert (source.path, source.pictures) == (f"{home}/rows.csv", f"{home}/pictures")


def test_a_home_that_nobody_has_stays_as_it_is() -> None:
    assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
