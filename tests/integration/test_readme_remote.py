"""The README's commands for a cluster, typed as they stand there, against the loopback cluster."""

import pytest

from tests.integration.readme_commands import commands, pipeline

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def given(remote, first) -> dict[str, str]:
    """What a reader fills in, by what stands for it here."""
    prepared = remote.run("tasks/data_prep.py", "data_prep", "--stage", "evaluation", *remote.small)
    return {
        "s3://BUCKET/BENCHMARKS": prepared.outputs.literals["o0"].scalar.blob.uri,
        "s3://BUCKET/CHECKPOINT": first.outputs.literals["checkpoint"].scalar.blob.uri,
    }


def test_there_is_a_command_of_every_kind() -> None:
    kinds = [words[words.index("flyte.config") + 1] for words in commands()]
    assert sorted(kinds) == ["launchplan", "register", "run", "run"]


def test_the_pipeline_runs(first) -> None:
    assert first.succeeded, first.error


@pytest.mark.parametrize(
    "words",
    [words for words in commands() if "--remote" in words and words != pipeline()],
    ids=" ".join,
)
def test_a_stage_runs(remote, given: dict[str, str], words: list[str]) -> None:
    execution = remote.run_as_written(words, given)
    assert execution.succeeded, execution.error


def test_the_schedule_is_registered_and_activated(remote) -> None:
    register, activate = (
        next(words for words in commands() if kind in words) for kind in ("register", "launchplan")
    )
    assert "Launch Plan: scheduled" in remote.typed(register)
    remote.typed(activate)
    registry = remote.cluster.registry
    (key,) = [key for name, key in registry.active.items() if name[2] == "scheduled"]
    (_, plan) = registry.launch_plans.specs[key]
    assert plan.entity_metadata.schedule.cron_schedule.schedule == "0 2 * * *"
    assert "recipe" in plan.default_inputs.parameters
