"""`siqvl recipe show|diff|check`: what a recipe holds and whence, and what is wrong with it."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from siqvl.cli.main import main
from siqvl.recipe import Recipe
from tests.made_checkpoint import made_checkpoint

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))
RATE = ["--set", "stages.dpo.learning_rate=1e-6"]


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def derived(tmp_path: Path) -> Path:
    path = tmp_path / "derived.yaml"
    path.write_text(
        "base: recipes/tiny.yaml\n"
        "seed: 4\n"
        "stages:\n"
        "  vqa_sft:\n"
        "    sources: [{kind: shapes, subsets: [vqa]}]\n"
        "evaluation:\n"
        "  benchmarks:\n"
        "    - benchmark: mmstar\n"
        "  gates: []\n"
        "  champion_benchmark: null\n"
    )
    return path


def siqvl(*words: object) -> Result:
    return CliRunner().invoke(main, ["recipe", *map(str, words)])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("option", [[], ["--origins"]])
def test_what_is_shown_is_the_recipe(path: Path, option: list[str]) -> None:
    done = siqvl("show", path, *option, *RATE)
    assert done.exit_code == 0
    shown = Recipe.model_validate(yaml.safe_load(done.stdout))
    assert shown == Recipe.load(path, RATE[1:]).model_copy(update={"changes": []})


def origins(path: Path, *words: str) -> dict[str, str]:
    """The key of each line, by its own place in the text -> what is said behind it."""
    done = siqvl("show", path, "--origins", *words)
    assert done.exit_code == 0, done.output
    found: dict[str, str] = {}
    way: list[tuple[int, str]] = []
    for line in done.stdout.splitlines():
        text, _, told = line.partition("  # ")
        depth = len(text) - len(text.lstrip(" -"))
        key = text.strip(" -").partition(":")[0]
        way = [one for one in way if one[0] < depth] + [(depth, key)]
        if told:
            found.setdefault(".".join(name for _, name in way), told)
    return found


def test_each_key_tells_what_it_came_from(derived: Path) -> None:
    lines = (ROOT / "recipes" / "tiny.yaml").read_text().splitlines()
    found = origins(derived, *RATE)
    assert found["seed"] == f"{derived}:2"
    assert found["stages.vqa_sft.sources.kind"] == f"{derived}:5"
    assert found["stages.vqa_sft.sources.max_samples"] == "default"  # the base's list is gone
    assert found["stages.dpo.learning_rate"] == "--set"
    assert found["evaluation.benchmarks.scorer"] == f"{derived}:8"  # the line that names it
    for key, text in (("name", "name:"), ("model.attention", "  attention:")):
        file, _, number = found[key].rpartition(":")
        assert file == "recipes/tiny.yaml"
        assert lines[int(number) - 1].startswith(text)


def test_origins_of_a_section_that_was_set_as_a_whole() -> None:
    found = origins(ROOT / "recipes" / "tiny.yaml", "--set", "data={shards: 2}")
    assert found["data.shards"] == found["data.leaks"] == "--set"


def test_only_keys_that_differ_are_told(derived: Path) -> None:
    done = siqvl("diff", "recipes/tiny.yaml", derived, *RATE)
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[2:]}
    assert rows["seed"] == ["0", "4"]
    assert rows["stages.dpo.learning_rate"][1] == "1e-06"
    assert rows["stages.vqa_sft.sources.0.max_samples"] == ["10000", "null"]
    assert rows["stages.vqa_sft.sources.1.kind"] == ["shapes", "–"]
    assert "stages.vqa_sft.sources.1.path" not in rows
    assert not any(key.startswith(("model.", "data.", "stages.cot_sft")) for key in rows)


def test_a_recipe_beside_its_own_change_and_beside_itself() -> None:
    done = siqvl("diff", "recipes/tiny.yaml", "--set", "seed=8")
    assert done.stdout.splitlines()[2:] == ["seed    0  8"]
    assert siqvl("diff", "recipes/tiny.yaml", "recipes/tiny.yaml").stdout == "equal\n"
    assert "name a second recipe" in siqvl("diff", "recipes/tiny.yaml").output


def test_a_checkpoint_stands_for_the_recipe_that_trained_it(tmp_path: Path) -> None:
    recipe = Recipe.load("recipes/tiny.yaml", ["seed=77"])
    checkpoint = made_checkpoint(tmp_path / "checkpoint", recipe, "one")
    done = siqvl("diff", "recipes/tiny.yaml", checkpoint)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[2:] == ["seed    0  77"]


def test_every_problem_is_a_line_and_nothing_is_started() -> None:
    changes = ("model.vision=a/b/c", "stages.dpo.sources.0.kind=easy", "stages.dpo.sampled=null")
    words = [word for change in changes for word in ("--set", change)]
    done = siqvl("check", "recipes/tiny.yaml", *words)
    assert done.exit_code == 1
    first, second, *rest = done.stdout.splitlines()
    assert first.startswith("model.vision: a/b/c is neither")
    assert second.startswith("unknown source kind `easy`")
    assert ["does not say how they are sampled" in line for line in rest] == [True]


@pytest.mark.parametrize(
    ("part", "model_type", "said"),
    [
        ("language", "llama", "is no language model that can be trained here; supported are Qwen2"),
        ("language", "no_such_family", "is no language model that can be trained here; supported"),
        ("vision", "clip", "is no tower that can be used here; supported are SigLIP"),
    ],
)
def test_a_folder_of_a_family_that_is_not_supported_cannot_start(
    tmp_path: Path, part: str, model_type: str, said: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    done = siqvl("check", "recipes/tiny.yaml", "--set", f"model.{part}={tmp_path}")
    assert done.exit_code == 1
    (problem,) = done.stdout.splitlines()
    assert problem.startswith(f"model.{part}: {tmp_path} has model_type '{model_type}', ")
    assert f"which {said}" in problem


def test_a_rank_above_the_width_of_all_layers_cannot_start() -> None:
    width = json.loads(Path("recipes/tiny_base/language/config.json").read_text())["hidden_size"]
    for rank, code in ((width, 0), (width + 1, 1), (1_000_000, 1)):
        change = f"stages.cot_sft.adapter.rank={rank}"
        done = siqvl("check", "recipes/tiny.yaml", "--set", change)
        assert done.exit_code == code, done.output
    assert done.stdout == (
        "stages.cot_sft.adapter.rank is 1000000, but the widest layer it is for has "
        f"{width} inputs or outputs, and no more can be learned than by a rank of {width}: lower "
        "it\n"
    )


def test_a_recipe_that_can_start() -> None:
    done = siqvl("check", "recipes/tiny.yaml")
    assert (done.exit_code, done.stdout) == (0, "recipes/tiny.yaml can start\n")


def test_what_lies_on_the_hub_is_told() -> None:
    done = siqvl("check", "recipes/tiny.yaml", "--set", "model.language=Qwen/Qwen2.5-0.5B")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "not checked: model.language: Qwen/Qwen2.5-0.5B is on the hub, and not fetched for this",
        "recipes/tiny.yaml can start, as far as it was checked",
    ]


def test_a_hub_that_does_not_answer_is_no_problem_of_the_recipe() -> None:
    source = "stages.cot_sft.sources.0={kind: table, path: me/no-such-set}"
    done = siqvl("check", "recipes/tiny.yaml", "--set", source)
    assert done.exit_code == 0
    first, last = done.stdout.splitlines()
    assert first.startswith("not checked: source `table`: hub data set me/no-such-set cannot be")
    assert last == "recipes/tiny.yaml can start, as far as it was checked"
