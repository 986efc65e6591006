"""The README's commands for a cluster, typed as they stand there, against the loopback cluster."""

import re
import shlex
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")
SECONDS = 600


def commands() -> list[list[str]]:
    """Every line that talks to a cluster, as words."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if "pyflyte -c flyte.config" in line]


@pytest.fixture(scope="module")
def given(remote) -> dict[str, str]:
    """What a reader fills in, and the recipe that needs a GPU, by what stands for it here."""
    recipe = ["--recipe", "recipes/small.yaml"]

    def output(*arguments: str) -> str:
        execution = remote.run(*arguments, *recipe)
        return execution.outputs.literals["o0"].scalar.blob.uri

    def prepared(stage: str) -> str:
        return output("tasks/data_prep.py", "data_prep", "--stage", stage)

    data = prepared("projector_alignment")
    stage = ("tasks/projector_alignment.py", "projector_alignment", "--data", data)
    return {
        "s3://BUCKET/BENCHMARKS": prepared("evaluation"),
        "s3://BUCKET/CHECKPOINT": output(*stage),
        "recipes/qwen2.5-0.5b.yaml": "recipes/small.yaml",
    }


def typed(remote, words: list[str], given: dict[str, str]) -> str:
    """Run a command with its blanks filled in; variables before it count, too."""
    place = words.index("pyflyte")
    assert words[place + 1 : place + 3] == ["-c", "flyte.config"]
    filled = [given.get(word, word) for word in words[place + 3 :]]
    variables = dict(word.split("=", 1) for word in words[:place])
    variables = {name: given.get(value, value) for name, value in variables.items()}
    return remote.pyflyte(*filled, **variables)


def test_there_is_a_command_of_every_kind() -> None:
    kinds = [words[words.index("flyte.config") + 1] for words in commands()]
    assert sorted(kinds) == ["launchplan", "register", "run", "run"]


@pytest.mark.parametrize(
    "words", [words for words in commands() if "--remote" in words], ids=" ".join
)
def test_runs(remote, given: dict[str, str], words: list[str]) -> None:
    remote.pods.image = True  # it ships what it has imported; the rest is in the image
    try:
        printed = typed(remote, words, given)
        execution = remote.cluster.executions[-1]
        assert execution.name in printed  # where to look at it
        assert execution.finished.wait(SECONDS)
    finally:
        remote.pods.image = False
    assert execution.succeeded, execution.error


def test_the_schedule_is_registered_and_activated(remote, given: dict[str, str]) -> None:
    register, activate = (
        next(words for words in commands() if kind in words) for kind in ("register", "launchplan")
    )
    assert "Launch Plan: scheduled" in typed(remote, register, given)
    typed(remote, activate, given)
    registry = remote.cluster.registry
    (key,) = [key for name, key in registry.active.items() if name[2] == "scheduled"]
    (_, plan) = registry.launch_plans.specs[key]
    assert plan.entity_metadata.schedule.cron_schedule.schedule == "0 2 * * *"
    assert "recipe" in plan.default_inputs.parameters
