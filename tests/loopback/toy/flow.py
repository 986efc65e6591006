"""The toy's workflows."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import NamedTuple

from flytekit import (
    Cache,
    CronSchedule,
    LaunchPlan,
    Resources,
    conditional,
    dynamic,
    map_task,
    task,
    workflow,
)
from flytekit.types.directory import FlyteDirectory
from flytekit.types.error.error import FlyteError
from toy.pieces import (
    IMAGE,
    Settings,
    broken,
    counted,
    flaky,
    gathered,
    lost,
    lost_element,
    scaled,
    slow,
    trained,
    written,
)

DEFAULT = Settings()


class Result(NamedTuple):
    total: int
    scaled: list[int]


class Measured(NamedTuple):
    folder: FlyteDirectory
    counts: list[int]


@dynamic(container_image=IMAGE, cache=Cache(version="1", ignored_inputs=("label",)))
def measured(folder: FlyteDirectory, times: int, label: str) -> Measured:
    """Counts a folder several times; what it hands on is what it was given."""
    counts = [
        counted(folder=folder, factor=factor + 1, label=label).with_overrides(
            requests=Resources(cpu="2", mem="3Gi"),
            shared_memory="1Gi",
            retries=3,
            cache=Cache(version="of the node"),
            container_image="other/image:2",
        )
        for factor in range(times)
    ]
    return Measured(folder=folder, counts=counts)


@workflow
def flow(settings: Settings = DEFAULT, times: int = 2, label: str = "") -> Result:
    """A folder that is handed over, a dynamic task, a list, and a map."""
    folder = written(settings=settings)
    found = measured(folder=folder, times=times, label=label)
    total = gathered(folders=[folder, folder], counts=found.counts)
    several = map_task(partial(scaled, by=[1, 1]), concurrency=2)(count=found.counts)
    return Result(total=total, scaled=several)


class Retried(NamedTuple):
    steps: int
    attempt: int


@workflow
def retried(steps: int = 2) -> Retried:
    """Two tasks that need more than one attempt."""
    return Retried(steps=trained(steps=steps), attempt=flaky())


@task(container_image=IMAGE)
def told(count: int, err: FlyteError | None = None) -> None:
    """Says which node failed, and why."""
    print(f"told: {count}, {err.failed_node_id if err else None}, {err.message if err else None}")


@dynamic(container_image=IMAGE, retries=1)
def risky(count: int) -> int:
    """A child that fails for good is not helped by another attempt of this one."""
    return broken(count=count)


@workflow(on_failure=told)
def failing(count: int = 3) -> tuple[int, int]:
    """One node fails while another works."""
    return risky(count=count), slow()


@workflow
def late() -> int:
    """The node has less time than its task asks for."""
    return slow().with_overrides(timeout=timedelta(seconds=3), retries=1)


@dynamic(container_image=IMAGE)
def losing(seconds: int, retries: int, limit: int) -> int:
    """As a pipeline does: its pod plans what the nodes ask for."""
    return lost(seconds=seconds).with_overrides(
        retries=retries, interruptible=True, timeout=timedelta(seconds=limit)
    )


@task(container_image=IMAGE)
def told_too(count: int, retries: int, limit: int, err: FlyteError | None = None) -> None:
    """Says so for a workflow with more inputs."""
    print(err.message if err else None)


@workflow(on_failure=told_too)
def planned(count: int = 120, retries: int = 2, limit: int = 0) -> int:
    """A task in a dynamic one that loses its pods."""
    return losing(seconds=count, retries=retries, limit=limit)


@workflow
def elements() -> list[int]:
    """A map of which one element loses its pods."""
    return map_task(lost_element)(index=[0, 1, 2])


@task(container_image=IMAGE)
def doubled(number: int) -> int:
    return 2 * number


@workflow
def inner(number: int) -> int:
    return doubled(number=number)


nightly = LaunchPlan.get_or_create(
    inner,
    "toy.nightly",
    default_inputs={"number": 4},
    schedule=CronSchedule(schedule="0 3 * * *"),
)


@workflow
def shapes(settings: Settings = DEFAULT) -> int:
    """A sub-workflow, a condition, a launch plan and an attribute of an input."""
    number = inner(number=settings.files)
    chosen = (
        conditional("is it large")
        .if_(number > 100)
        .then(doubled(number=number))
        .elif_((number >= 4) & (number < 50))
        .then(inner(number=number))
        .else_()
        .fail("too small")
    )
    return nightly(number=chosen)
