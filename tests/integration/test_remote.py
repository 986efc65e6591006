"""`pyflyte run --remote` over the loopback cluster: the pipeline whole, cached and failing."""

import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flytekit.models.literals import LiteralMap
from loopback.records import Execution, NodeRecord

from siqvl.checkpoint import CheckpointCard
from siqvl.recipe import PIPELINE as STAGES
from siqvl.recipe import Stage
from siqvl.tracking.runs import client

pytestmark = pytest.mark.integration

PIPELINE = ("workflows/full_pipeline.py", "full_pipeline")
#: Tasks that are never cached: they open, fill in and close the run of an execution.
ALWAYS = {"all_stages": 1, "open_run": 1, "pipeline_report": 1, "promotion": 1}


def tasks(execution: Execution, *, cached: bool) -> Counter:
    """How often each task ran, or came from the cache."""
    return Counter(
        node.task_name.rpartition(".")[2]
        for node in execution.nodes
        if node.task_name and node.cached is cached
    )


def deck(remote, node: NodeRecord) -> str:
    """What lies in the blob store for the console to show beside a task; empty if nothing does."""
    found = [
        remote.cluster.store.get(f"{attempt.output_prefix}/deck.html") for attempt in node.attempts
    ]
    return b"".join(one for one in found if one is not None).decode()


def files(remote, literal, folder: Path) -> Path:
    """The directory behind an output, fetched from the blob store."""
    store, address = remote.cluster.store, literal.scalar.blob.uri.rstrip("/")
    for key in store.list(address):
        file = folder / key.removeprefix(address).lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.get(key))
    return folder


def parent_run(remote, execution: Execution):
    store = client(remote.tracking)
    (experiment,) = [one for one in store.search_experiments() if one.name == "remote"]
    (parent,) = [
        run
        for run in store.search_runs([experiment.experiment_id])
        if run.data.tags.get("flyte.execution", "").endswith(f"/{execution.name}")
        and run.data.tags.get("siqvl.kind") == "pipeline"
    ]
    children = store.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    return parent, {child.info.run_name: child for child in children}


def test_all_stages_run_each_in_a_pod_of_its_own(remote, first: Execution, tmp_path: Path) -> None:
    assert first.succeeded
    ran = tasks(first, cached=False)
    assert ran == ALWAYS | dict.fromkeys(STAGES, 1) | {"data_prep": 5, "evaluation": 4}
    assert not tasks(first, cached=True)
    outputs = LiteralMap.from_flyte_idl(first.outputs).literals
    checkpoint = files(remote, outputs["checkpoint"], tmp_path / "checkpoint")
    card = CheckpointCard.model_validate_json((checkpoint / "siqvl.json").read_text())
    assert card.stage is Stage.DPO
    assert (checkpoint / "model.safetensors").stat().st_size > 1e6
    report = files(remote, outputs["report"], tmp_path / "report")
    assert {path.name for path in report.iterdir()} == {"stages.txt", "gates.json", "report.html"}


def test_the_deck_changes_while_a_stage_is_trained(remote, first: Execution) -> None:
    """Of as many steps and pages as `--set` says, which the recipe of the task has by then."""
    (of_first,) = first.of_task("projector_alignment")
    data = of_first.inputs.literals["data"].scalar.blob.uri
    changes = ["stages.projector_alignment.max_steps=400", "tracking.page_every=5"]
    words = ("--data", data, *remote.small, "--set", json.dumps(changes))
    before = len(remote.cluster.executions)
    with ThreadPoolExecutor(1) as pool:
        task = ("tasks/projector_alignment.py", "projector_alignment")
        running = pool.submit(remote.run, *task, *words)
        shown: dict[str, None] = {}  # the step of each deck that was seen
        while not running.done():
            time.sleep(0.2)
            for execution in remote.cluster.executions[before:]:
                for node in execution.of_task("projector_alignment"):
                    shown |= dict.fromkeys(re.findall(r"step [\d,]+ of 400", deck(remote, node)))
        done = running.result()
    assert done.succeeded, done.error
    steps = [int(words.split()[1].replace(",", "")) for words in shown]
    assert len(steps) >= 3
    assert steps == sorted(steps)
    assert steps[0] < 400
    (node,) = done.of_task("projector_alignment")
    assert "step 400 of 400" in deck(remote, node)
    assert "What it answers after step 400" in deck(remote, node)
    store = client(remote.tracking)
    everywhere = [one.experiment_id for one in store.search_experiments()]
    of_task = f"tags.`flyte.execution` LIKE '%/{done.name}'"
    (run,) = store.search_runs(everywhere, of_task)
    assert run.data.tags["siqvl.set"] == "\n".join(changes)
    assert run.data.params["recipe.max_steps"] == "400"


def test_its_runs_are_complete(remote, first: Execution) -> None:
    parent, children = parent_run(remote, first)
    assert parent.info.status == "FINISHED"
    assert {child.info.status for child in children.values()} == {"FINISHED"}
    expected = {"evaluation data"}
    for stage in STAGES:
        expected |= {f"{stage} data", stage.value, f"{stage} evaluation"}
    assert set(children) == expected
    assert "vqa/accuracy" in parent.data.metrics
    for stage in STAGES:
        assert children[stage.value].data.tags["flyte.attempt"] == "0"


def test_a_second_run_takes_every_stage_from_the_cache(remote, first: Execution) -> None:
    again = remote.run(*PIPELINE, *remote.small)
    assert again.succeeded
    assert tasks(again, cached=False) == ALWAYS
    assert tasks(again, cached=True) == tasks(first, cached=False) - Counter(ALWAYS)
    assert again.outputs.literals["checkpoint"].hash == first.outputs.literals["checkpoint"].hash


def test_stages_from_the_cache_are_the_versions_that_there_are(remote, first: Execution) -> None:
    store, name = client(remote.tracking), remote.recipe.tracking.model_name
    children = parent_run(remote, first)[1]
    runs = {children[stage].info.run_id: stage for stage in STAGES}
    versions = store.search_model_versions(f"name = '{name}'")  # other tests' among them
    own = {runs[version.run_id]: version for version in versions if version.run_id in runs}
    assert {stage: version.tags["siqvl.stage"] for stage, version in own.items()} == {
        stage: stage.value for stage in STAGES
    }
    made = [version.tags["siqvl.checkpoint"] for version in versions]
    assert all(made.count(version.tags["siqvl.checkpoint"]) == 1 for version in own.values())
    candidate = store.get_registered_model(name).aliases["candidate"]
    assert int(candidate) == int(own[Stage.DPO].version)


def test_another_rate_of_stage_3_leaves_stages_1_and_2_as_they_are(remote, first) -> None:
    def change(content: dict) -> None:
        content["stages"]["cot_sft"]["learning_rate"] = 5e-4
        content["name"] = "another-name"  # and where things are kept does not count

    changed = remote.run(*PIPELINE, "--recipe", remote.write("changed.yaml", change))
    assert changed.succeeded
    assert tasks(changed, cached=True) == {
        "data_prep": 5,
        "projector_alignment": 1,
        "vqa_sft": 1,
        "evaluation": 2,
    }
    assert tasks(changed, cached=False) == ALWAYS | {"cot_sft": 1, "dpo": 1, "evaluation": 2}


def test_a_user_error_in_stage_2_ends_everything_in_the_true_state(remote, first) -> None:
    """The table is there when the recipe is judged; the pictures that its rows name are not."""

    def change(content: dict) -> None:
        row = {"id": 1, "image": "moved/away.png", "question": "what is it?", "answer": "a bus"}
        (remote.checkout / "recipes" / "table.jsonl").write_text(json.dumps(row) + "\n")
        content["stages"]["vqa_sft"]["sources"] = [{"kind": "table", "path": "recipes/table.jsonl"}]

    failed = remote.run(*PIPELINE, "--recipe", remote.write("failing.yaml", change), code=None)
    printed = remote.printed[-1]
    assert failed.state == "FAILED"
    assert "UserError: " in printed
    line = failed.error.message.strip().splitlines()[-1].strip()
    assert line.startswith("UserError: ")
    assert "away.png" in line or "quarantine" in line
    assert not failed.error.recoverable
    (data,) = [
        node for node in failed.nodes if node.state == "FAILED" and "data_prep" in node.task_name
    ]
    assert len(data.attempts) == 1  # trying again would not help
    parent, children = parent_run(remote, failed)
    assert parent.info.status == "FAILED"
    sentence = line.removeprefix("UserError: ")
    assert parent.data.tags["siqvl.error"] == sentence
    assert children["vqa_sft data"].info.status == "FAILED"
    assert children["vqa_sft data"].data.tags["siqvl.error"] == sentence
    assert "RUNNING" not in {child.info.status for child in children.values()}
