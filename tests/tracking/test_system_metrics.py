"""Samples of the machine in a run."""

import threading
import time
from pathlib import Path

import psutil
import pytest

from siqvl.tracking.runs import client, stage_run
from siqvl.tracking.system_metrics import sampled


def test_a_run_has_samples_of_its_machine_under_mlflows_names(
    tmp_path: Path, small_recipe, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracking = {
        "experiment": "system",
        "uri": f"sqlite:///{tmp_path}/mlflow.db",
        "system_metrics_seconds": 0.1,
    }
    recipe = small_recipe(tmp_path, tracking=tracking)
    before = threading.active_count()
    with stage_run(recipe, "sampled", None, {}) as log:
        time.sleep(0.55)
    found = client(log.uri).get_run(log.run_id).data.metrics
    total = psutil.virtual_memory().total / 1e6
    assert 0 < found["system/system_memory_usage_megabytes"] < total
    assert 0 <= found["system/cpu_utilization_percentage"] <= 100
    history = client(log.uri).get_metric_history(log.run_id, "system/disk_usage_megabytes")
    assert [point.step for point in history] == list(range(len(history)))
    assert 3 <= len(history) <= 7
    assert threading.active_count() <= before + 1  # the courier's


def test_a_monitor_that_fails_is_left_out(caplog) -> None:
    class Broken:
        def collect_metrics(self):
            raise OSError("no such counter")

    class Fine:
        def collect_metrics(self): ...

        def clear_metrics(self): ...

        def aggregate_metrics(self):
            return {"cpu": 1.0}

    logged: list[dict] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("siqvl.tracking.system_metrics._monitors", lambda: [Broken(), Fine()])
        with sampled(lambda values, step: logged.append(values), 0.05):
            time.sleep(0.12)
    assert len(logged) >= 2
    assert all(values == {"system/cpu": 1.0} for values in logged)
    assert caplog.text.count("Broken is left out: no such counter") == 1


def test_none_are_taken_where_none_are_asked_for() -> None:
    with sampled(lambda *_, **__: pytest.fail("a sample"), None):
        time.sleep(0.05)
