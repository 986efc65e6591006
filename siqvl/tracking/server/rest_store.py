"""Runs in the store of an MLflow server: what a task asks of it, without importing MLflow.

Methods have the names and meanings of those of `MlflowClient`; whatever else is asked of it, and
artifacts that do not go through the server, is done by that.
"""

from __future__ import annotations

import mimetypes
import os
import time
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from siqvl.recipe import without_password
from siqvl.tracking.server.rest_request import RestError, asked, sent

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
PROXIED = "mlflow-artifacts:/"
PAGE = 1000  # experiments, or runs, of an answer
#: Larger files may go to a server in parts, which MLflow's client knows about.
LARGEST = 100 << 20


class RestStore:
    """The store behind the address of a server."""

    def __init__(self, uri: str) -> None:
        self.tracking_uri = uri
        self._infos: dict[str, Any] = {}  # of runs, as far as nothing changes it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._full(), name)

    def get_experiment_by_name(self, name: str) -> Any:
        """The experiment, None if there is none."""
        try:
            found = self._ask("GET", "experiments/get-by-name", params={"experiment_name": name})
        except RestError as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return SimpleNamespace(**found["experiment"])

    def create_experiment(self, name: str, tags: dict[str, str] | None = None) -> str:
        """Its id."""
        content = {"name": name, "tags": _pairs(tags or {})}
        return str(self._ask("POST", "experiments/create", json=content)["experiment_id"])

    def search_experiments(self) -> list[Any]:
        """All that are not deleted."""
        content: dict[str, Any] = {"max_results": PAGE, "view_type": "ACTIVE_ONLY"}
        found = []
        while True:
            answer = self._ask("POST", "experiments/search", json=content)
            found += [SimpleNamespace(**one) for one in answer.get("experiments", [])]
            if not answer.get("next_page_token"):
                return found
            content["page_token"] = answer["next_page_token"]

    def create_run(self, experiment_id: str, start_time: int, tags: dict[str, str]) -> Any:
        """A run that is RUNNING."""
        content = {"experiment_id": experiment_id, "user_id": "unknown", "start_time": start_time}
        answer = self._ask("POST", "runs/create", json=content | {"tags": _pairs(tags)})
        return _run(answer["run"])

    def get_run(self, run_id: str) -> Any:
        return _run(self._ask("GET", "runs/get", params={"run_id": run_id})["run"])

    def search_runs(
        self, experiment_ids: list[str], filter_string: str = "", max_results: int = PAGE
    ) -> list[Any]:
        """The newest that are not deleted."""
        content: dict[str, Any] = {"experiment_ids": experiment_ids, "filter": filter_string}
        content |= {"max_results": max_results, "run_view_type": "ACTIVE_ONLY"}
        answer = self._ask("POST", "runs/search", json=content)
        return [_run(one) for one in answer.get("runs", [])]

    def set_terminated(self, run_id: str, status: str, end_time: int | None = None) -> None:
        """End a run, and print where it is to be seen, as MLflow's client does."""
        content = {"run_id": run_id, "status": status}
        end = int(time.time() * 1000) if end_time is None else end_time
        self._ask("POST", "runs/update", json=content | {"end_time": end})
        if os.environ.get("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "").lower() in ("true", "1"):
            return
        with suppress(RestError):  # the run has ended
            run, server = self._info(run_id), without_password(self.tracking_uri).rstrip("/")
            page = f"{server}/#/experiments/{run.experiment_id}/runs/{run_id}"
            print(f"View run {run.run_name} at: {page}", flush=True)

    def update_run(self, run_id: str, status: str) -> None:
        """Set its status; when it ended stays as it is."""
        content: dict[str, Any] = {"run_id": run_id, "status": status}
        if (end := self.get_run(run_id).info.end_time) is not None:
            content["end_time"] = end
        self._ask("POST", "runs/update", json=content)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        content = {"run_id": run_id, "key": key, "value": value}
        self._ask("POST", "runs/set-tag", json=content)

    def delete_tag(self, run_id: str, key: str) -> None:
        self._ask("POST", "runs/delete-tag", json={"run_id": run_id, "key": key})

    def log_points(self, run_id: str, points: dict[str, Any]) -> None:
        """Log `metrics`, `params` and `tags` as the API takes them, in one request."""
        self._ask("POST", "runs/log-batch", json={"run_id": run_id, **points})

    def log_datasets(self, run_id: str, datasets: list[dict[str, Any]]) -> None:
        """Say which data a run uses: each the fields of a data set, and `tags`, a mapping."""
        inputs = [
            {
                "dataset": {name: value for name, value in one.items() if name != "tags"},
                "tags": _pairs(one.get("tags", {})),
            }
            for one in datasets
        ]
        self._ask("POST", "runs/log-inputs", json={"run_id": run_id, "datasets": inputs})

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        place = self._proxied(run_id)
        if place is None:
            self._full().log_text(run_id, text, artifact_file)
        else:
            self._put(place, artifact_file, text.encode("utf-8"))

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        """Keep the files of a folder."""
        folder = Path(local_dir)
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        place = self._proxied(run_id)
        if place is None or any(file.stat().st_size > LARGEST for file in files):
            self._full().log_artifacts(run_id, local_dir, artifact_path)
            return
        for file in files:
            name = PurePosixPath(artifact_path or "", file.relative_to(folder).as_posix())
            with file.open("rb") as content:
                # a body of no length would be sent in chunks, which servers may refuse
                self._put(place, str(name), content if os.path.getsize(file) else b"")

    def _put(self, place: str, name: str, content: Any) -> None:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        path = f"{PROXY}/{quote(place)}/{quote(name)}"
        sent(self.tracking_uri, "PUT", path, data=content, headers={"Content-Type": kind})

    def _proxied(self, run_id: str) -> str | None:
        """Where a run's artifacts lie behind the server; None: it has them in another place."""
        address = self._info(run_id).artifact_uri
        place = address.removeprefix(PROXIED)
        return None if place == address or place.startswith("/") else place

    def _info(self, run_id: str) -> Any:
        if run_id not in self._infos:
            self._infos[run_id] = self.get_run(run_id).info
        return self._infos[run_id]

    def _full(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.tracking_uri)

    def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        return asked(self.tracking_uri, method, path, **content)


def _pairs(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _run(found: dict[str, Any]) -> Any:
    """A run with the attributes of MLflow's `Run` that are used here."""
    info, data = found["info"], found.get("data", {})
    ended = info.get("end_time")
    return SimpleNamespace(
        info=SimpleNamespace(
            run_id=info["run_id"],
            run_name=info.get("run_name", ""),
            experiment_id=info["experiment_id"],
            status=info["status"],
            end_time=None if ended is None else int(ended),
            artifact_uri=info.get("artifact_uri", ""),
        ),
        data=SimpleNamespace(
            tags={one["key"]: one.get("value", "") for one in data.get("tags", [])},
            params={one["key"]: one.get("value", "") for one in data.get("params", [])},
        ),
    )
