"""What becomes of the runs of executions that are aborted or given up, by what FlyteAdmin says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from flyteidl.admin.execution_pb2 import Execution
from flyteidl.core.execution_pb2 import WorkflowExecution as Phase
from flyteidl.service import admin_pb2_grpc

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking import heartbeat
from siqvl.tracking.heartbeat import LOST_AFTER, PATIENCE, by_silence, judge_by
from siqvl.tracking.runs import REASON, RunLog, client, start_run
from siqvl.tracking.store import HEARTBEAT
from tasks import executions
from tasks.contracts import PipelineRun
from tasks.executions import ADMIN, admin_address, by_engine
from tasks.pipeline_run import _parent_run, open_run
from tasks.recovered import EARLIER, take_over_run
from tasks.stopping import Stopped
from tasks.tracked import of_pipeline, tracked

ABORTED = "execution siqvl/development/old was aborted in Flyte by ada: enough"
HOUR = 3600.0


@dataclass
class Said(admin_pb2_grpc.AdminServiceServicer):
    """A FlyteAdmin that knows these executions."""

    closures: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def GetExecution(self, request: Any, context: Any) -> Execution:
        self.asked.append(request.id.name)
        if request.id.name not in self.closures:
            context.abort(grpc.StatusCode.NOT_FOUND, "it is unknown")
        found = Execution(id=request.id)
        for name, value in self.closures[request.id.name].items():
            place = found.closure
            *path, last = name.split("__")
            for part in path:
                place = getattr(place, part)
            setattr(place, last, value)
        return found


class Passed:
    """Stands in the queue of the heartbeat's thread for a run, behind those that have begun."""

    uri = experiment = ""

    def __init__(self) -> None:
        self.reached = threading.Event()

    @property
    def outbox(self) -> None:
        self.reached.set()
        raise RuntimeError("there is no such run")


def settled() -> None:
    """Have the thread look at all runs that have begun; later it would ask the next test's."""
    if heartbeat._thread is not None and heartbeat._thread.is_alive():
        passed = Passed()
        heartbeat._begun.put(passed)  # type: ignore[arg-type]
        assert passed.reached.wait(30)


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Said]:
    said, server = Said(), grpc.server(ThreadPoolExecutor(2))
    admin_pb2_grpc.add_AdminServiceServicer_to_server(said, server)
    said.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setenv(ADMIN, said.address)
    monkeypatch.setattr(executions, "_answers", {})
    judge_by(by_engine)
    yield said
    settled()
    judge_by(by_silence)
    server.stop(grace=None).wait()


@pytest.fixture(autouse=True)
def pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a pod of execution `new`."""
    for part, value in {"PROJECT": "siqvl", "DOMAIN": "development", "ID": "new"}.items():
        monkeypatch.setenv(f"FLYTE_INTERNAL_EXECUTION_{part}", value)


def left_open(
    recipe: Recipe, name: str, silent: float, *, pipeline: bool = True, of: str = "old"
) -> RunLog:
    """A run whose process is gone, and which has been silent for so many seconds."""
    tags = {"flyte.execution": f"siqvl/development/{of}"}
    tags |= {"siqvl.kind": "pipeline", PATIENCE: f"{24 * HOUR:.0f}"} if pipeline else {}
    log = start_run(recipe, name, tags=tags)
    assert log.flush()
    heartbeat._open.clear()
    time.sleep(0.05)  # a beat may be under way
    client(log.uri).set_tag(log.run_id, HEARTBEAT, f"{time.time() - silent:.0f} 1")
    return log


def seen(log: RunLog) -> tuple[str, str | None]:
    found = client(log.uri).get_run(log.run_id)
    return found.info.status, found.data.tags.get(REASON)


def opened(recipe: Recipe, name: str = "opened") -> RunLog:
    """A run of this process, whose beginning looks at the others."""
    log = start_run(recipe, name)
    heartbeat.look()
    return log


@pytest.mark.parametrize(
    ("closure", "end"),
    [
        (
            {
                "phase": Phase.ABORTED,
                "abort_metadata__cause": "enough",
                "abort_metadata__principal": "ada",
            },
            ("KILLED", ABORTED),
        ),
        (
            {"phase": Phase.ABORTING, "abort_metadata__cause": "enough"},
            ("KILLED", ABORTED.replace(" by ada", "")),
        ),
        ({"phase": Phase.RUNNING}, ("RUNNING", None)),
        ({"phase": Phase.QUEUED}, ("RUNNING", None)),
        ({"phase": Phase.SUCCEEDED}, ("RUNNING", None)),  # its end is on the way, in an outbox
    ],
)
def test_a_pipelines_run_ends_as_its_execution_did(recipe, admin, closure, end) -> None:
    admin.closures["old"] = closure
    log = left_open(recipe, "old", silent=40 * HOUR)
    opened(recipe)
    assert seen(log) == end


def test_one_that_was_given_up_has_failed_and_says_so(recipe, admin) -> None:
    message = "max number of system retry attempts [11/10] exhausted. Last known status message: x"
    admin.closures["old"] = {"phase": Phase.FAILED, "error__message": message}
    log = left_open(recipe, "old", silent=200)
    opened(recipe)
    status, reason = seen(log)
    assert status == "FAILED"
    assert "siqvl/development/old FAILED in Flyte: " in (reason or "")
    assert "[11/10] exhausted" in (reason or "")


def test_a_run_of_a_running_execution_is_never_closed(recipe, admin) -> None:
    """Its pods wait for nodes, and nobody beats for it."""
    admin.closures["old"] = {"phase": Phase.RUNNING}
    pipeline = left_open(recipe, "pipeline", silent=1000 * HOUR)
    stage = left_open(recipe, "vqa_sft", silent=LOST_AFTER + 60, pipeline=False)
    opened(recipe)
    assert seen(pipeline) == ("RUNNING", None)
    status, reason = seen(stage)  # but the process of a stage is gone
    assert status == "KILLED"
    assert reason is not None
    assert reason.startswith("its process was killed, or its machine was lost: no heartbeat for ")


def test_a_run_that_beats_is_not_asked_for(recipe, admin) -> None:
    admin.closures["old"] = {"phase": Phase.ABORTED}
    log = left_open(recipe, "old", silent=60)
    opened(recipe)
    assert seen(log) == ("RUNNING", None)
    assert admin.asked == []


def test_without_an_answer_its_own_patience_counts(recipe, admin) -> None:
    waits, lost = left_open(recipe, "waits", 23 * HOUR), left_open(recipe, "lost", 25 * HOUR + 60)
    opened(recipe)
    assert seen(waits) == ("RUNNING", None)
    assert seen(lost) == (
        "KILLED",
        "its execution was aborted, or given up: no heartbeat for 25 hours",
    )


def test_one_execution_is_asked_for_once_a_minute(recipe, admin) -> None:
    admin.closures["old"] = {"phase": Phase.RUNNING}
    for number in range(3):
        left_open(recipe, f"run {number}", silent=HOUR)
    opened(recipe, "a")
    opened(recipe, "b")
    assert admin.asked == ["old"]


def test_runs_that_beat_again_are_open_and_have_no_error(recipe, monkeypatch) -> None:
    log = left_open(recipe, "old", silent=25 * HOUR)
    opened(recipe)
    assert seen(log)[0] == "KILLED"
    monkeypatch.setattr(heartbeat, "EVERY", 0.1)
    monkeypatch.setattr(heartbeat, "_thread", None)
    with of_pipeline(recipe, PipelineRun(name="x", run_id=log.run_id)):
        end = time.monotonic() + 60
        while seen(log) != ("RUNNING", None):
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://flyteadmin.flyte:81", ("flyteadmin.flyte:81", True)),
        ("http://flyteadmin.flyte", ("flyteadmin.flyte:80", True)),
        ("https://flyte.example.org", ("flyte.example.org:443", False)),
        ("dns:///flyte.example.org:8443/", ("flyte.example.org:8443", False)),
    ],
)
def test_where_pods_find_flyteadmin(address: str, expected: tuple[str, bool]) -> None:
    assert admin_address(address) == expected


@pytest.mark.parametrize("address", ["flyteadmin", "flyte:81", "https://a:b@flyte.example.org", ""])
def test_another_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"SIQVL_FLYTE_ADMIN is .* write where pods find"):
        admin_address(address)


# A pod that is told to end


@pytest.mark.parametrize("context", ["tracked", "of_pipeline"])
def test_a_pod_of_an_aborted_execution_ends_the_pipelines_run(recipe, admin, context: str) -> None:
    admin.closures["new"] = {"phase": Phase.ABORTING, "abort_metadata__cause": "enough"}
    pipeline = left_open(recipe, "pipeline", silent=0, of="new")
    run = PipelineRun(name="x", run_id=pipeline.run_id)
    work = tracked(recipe, "vqa_sft", run) if context == "tracked" else of_pipeline(recipe, run)
    with pytest.raises(Stopped), work:
        raise Stopped(15)
    reason = "execution siqvl/development/new was aborted in Flyte: enough"
    assert seen(pipeline) == ("KILLED", reason)


def test_a_pod_whose_node_goes_leaves_the_pipelines_run_open(recipe, admin) -> None:
    admin.closures["new"] = {"phase": Phase.RUNNING}
    pipeline = left_open(recipe, "pipeline", silent=0, of="new")
    run = PipelineRun(name="x", run_id=pipeline.run_id)
    with pytest.raises(Stopped), tracked(recipe, "vqa_sft", run):
        raise Stopped(15)
    assert seen(pipeline) == ("RUNNING", None)


# The first pod of another execution


def test_a_pipelines_run_says_how_long_it_may_be_silent(recipe: Recipe) -> None:
    found = client(recipe.tracking.uri or "").get_run(_parent_run(recipe, "now"))
    assert found.data.tags[PATIENCE] == "86400"
    content = recipe.model_dump(mode="json")
    content["compute"]["waiting_hours"] = None
    never = Recipe.model_validate(content)
    found = client(recipe.tracking.uri or "").get_run(_parent_run(never, "then"))
    assert found.data.tags[PATIENCE] == "inf"
    assert by_silence(found, 1e9) is None


def test_opening_a_run_closes_what_earlier_executions_left(recipe: Recipe, admin) -> None:
    admin.closures["old"] = {"phase": Phase.ABORTED, "abort_metadata__cause": "enough"}
    log = left_open(recipe, "old", silent=300)
    open_run(recipe=recipe)
    assert seen(log) == ("KILLED", ABORTED.replace(" by ada", ""))


def test_a_second_attempt_to_open_a_run_ends_the_first_one(recipe: Recipe) -> None:
    first = _parent_run(recipe, "20260101-000000-aaaa")
    heartbeat._open.clear()
    second = _parent_run(recipe, "20260101-000001-bbbb")
    store = client(recipe.tracking.uri or "")
    assert store.get_run(first).info.status == "KILLED"
    assert store.get_run(second).info.status == "RUNNING"


# An execution that recovers another


def failed(recipe: Recipe) -> RunLog:
    log = left_open(recipe, "old", silent=0)
    log.tags({REASON: "UserError: why it failed"})
    heartbeat._open.clear()
    assert log.flush()
    client(log.uri).set_terminated(log.run_id, "FAILED")
    return log


def test_both_executions_are_on_the_run(recipe: Recipe, monkeypatch, capsys) -> None:
    monkeypatch.setenv("SIQVL_FLYTE_CONSOLE", "https://flyte.example.org")
    log = failed(recipe)
    run = PipelineRun(name="x", run_id=log.run_id)
    with tracked(recipe, "vqa_sft", run):
        assert seen(log) == ("RUNNING", None)
    with tracked(recipe, "dpo", run):  # the next pod finds it so
        pass
    tags = client(log.uri).get_run(log.run_id).data.tags
    assert tags["flyte.execution"] == "siqvl/development/new"
    assert tags[EARLIER] == "siqvl/development/old"
    assert tags["flyte.url"].endswith("/domains/development/executions/new")
    said = "execution siqvl/development/new goes on in the MLflow run of siqvl/development/old\n"
    assert capsys.readouterr().out.count(said) == 1


def test_three_in_a_row_are_all_there_and_none_takes_it_back(recipe, monkeypatch) -> None:
    log = failed(recipe)
    run = PipelineRun(name="x", run_id=log.run_id)
    for name in ("new", "newer", "new"):  # a pod of `new` in its grace comes last
        monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", name)
        take_over_run(recipe, run)
    tags = client(log.uri).get_run(log.run_id).data.tags
    assert tags["flyte.execution"] == "siqvl/development/newer"
    assert tags[EARLIER] == "siqvl/development/old siqvl/development/new"


def test_a_task_that_is_run_alone_takes_nothing_over(recipe: Recipe, monkeypatch) -> None:
    log = failed(recipe)
    workflow = "siqvl:development:.flytegen.tasks.vqa_sft.vqa_sft"
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_WORKFLOW", workflow)
    take_over_run(recipe, PipelineRun(name="x", run_id=log.run_id))
    assert seen(log) == ("FAILED", "UserError: why it failed")


def test_a_store_that_is_away_stops_no_task(recipe: Recipe, tmp_path: Path, caplog) -> None:
    content = recipe.model_dump(mode="json")
    content["tracking"] |= {"uri": "http://127.0.0.1:9", "patience_seconds": 1}
    away = Recipe.model_validate(content)
    take_over_run(away, PipelineRun(name="x", run_id="0" * 32))
    assert "the pipeline's run may name another execution" in caplog.text
