"""What every test shares: no hub, few threads, real data only where it was offered."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

# Before torch or transformers are imported anywhere: two cores, and nothing to download.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from siqvl.data.preparation.prepare import prepare
from siqvl.recipe import PIPELINE, Recipe, Stage
from siqvl.stages import STAGES
from siqvl.tracking import heartbeat
from siqvl.training.loop.stop_request import Standing, standing
from siqvl.training.stage import train_stage
from tests.loopback.forked import forked_programs
from tests.quick import copied_stores, made_once, preloaded_children, stop_children
from tests.small_recipe import small_recipe

ROOT = Path(__file__).parent.parent


#: Files that share the cluster and the pipeline of the fixture `remote`.
SHARED = ("drained", "lost_machines", "lost_stages", "preempted", "readme_remote", "remote")
CLUSTER = {f"tests/integration/test_{name}.py" for name in SHARED}
UNCACHED = ROOT / "tests" / "integration" / "test_remote.py"


class ByFile(LoadScopeScheduling):
    """The tests of a file stay in one of pytest's processes, for what its fixtures make.

    pytest-xdist 3.8 has `--dist loadgroup` for this; under pytest 9.2 it overlooks every group.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "cluster" if file in CLUSTER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """Share tests out to the processes of `-n`."""
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out drills that nobody asked for, and begin with files whose tests take minutes.

    So no process is left alone with one of them at the end.
    """
    if "drill" not in config.option.markexpr:
        drills = [item for item in items if item.get_closest_marker("drill")]
        config.hook.pytest_deselected(items=drills)
        items[:] = [item for item in items if item not in drills]
    long = {item.path for item in items if item.get_closest_marker("integration")}
    # the first of those that share a cluster counts what runs while nothing is in the cache
    items.sort(key=lambda item: (item.path not in long, item.path != UNCACHED))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch  # which such a test has imported

        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA GPU here")


def copy_code(folder: Path, names: Iterable[str]) -> Path:
    """The code as a user has it, without this machine's outputs."""
    for name in names:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def code() -> Callable[[Path, Iterable[str]], Path]:
    return copy_code


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of published data, named by SIQVL_REAL_DATA."""
    folder = os.environ.get("SIQVL_REAL_DATA")
    if not folder:
        pytest.skip("SIQVL_REAL_DATA is not set: published data is not in the repository")
    return Path(folder)


@pytest.fixture(scope="session", name="small_recipe")
def small_recipe_fixture() -> Callable[..., Recipe]:
    return small_recipe


@pytest.fixture(scope="session", autouse=True)
def quick_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with copied_stores(tmp_path_factory):
        yield


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """What a test has begun and not ended is nobody's after it, nor what it has set for MLflow."""
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    yield
    heartbeat._open.clear()
    vars(standing).update(vars(Standing()))
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def no_children_left() -> Iterator[None]:
    yield
    stop_children()


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pyflyte` and the programs of pods, without eight seconds of imports each."""

    def make(folder: Path) -> None:
        forked_programs(
            folder, os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
        )

    return made_once(tmp_path_factory, "forked", make) / "bin"


@pytest.fixture
def quick_children() -> Iterator[None]:
    """For tests of what several processes compute; those of how they start do without."""
    with preloaded_children():
        yield


@dataclass(frozen=True)
class Trained:
    """Four stages trained once, at two steps each; where their data and checkpoints are."""

    recipe: Recipe
    folder: Path

    def data(self, stage: Stage) -> Path:
        return self.folder / "data" / stage.value

    def checkpoint(self, stage: Stage) -> Path:
        return self.folder / "checkpoints" / stage.value

    def parent(self, stage: Stage) -> Path | None:
        parents = STAGES[stage].parents
        return self.checkpoint(parents[0]) if parents else None


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, small_recipe: Callable[..., Recipe]
) -> Trained:
    def make(folder: Path) -> None:
        pipeline = Trained(small_recipe(folder), folder)
        for stage in PIPELINE:
            prepare(
                pipeline.recipe.stage(stage).sources,
                STAGES[stage].rows,
                pipeline.data(stage),
                data=pipeline.recipe.data,
                seed=0,
            )
            train_stage(
                stage,
                pipeline.recipe,
                data=pipeline.data(stage),
                checkpoint=pipeline.parent(stage),
                output=pipeline.checkpoint(stage),
            )

    folder = made_once(tmp_path_factory, "stages", make)
    return Trained(small_recipe(folder), folder)
