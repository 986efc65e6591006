"""`Cluster`: all parts together, started and stopped."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .admin import Admin, DataProxy, serve
from .attempts import Rules
from .catalog import Catalog
from .engine import Engine
from .pods import Launcher, Pod, PodRunner, ProcessPods
from .records import Execution
from .registry import Registry
from .store import Store
from .tasks import TaskRunner, Waits, at_once

FOREIGN = ("FLYTE", "AWS_", "MLFLOW_", "PYTEST", "_F_")  # not handed on to clients


class Cluster:
    """A Flyte cluster on loopback; see the package for what it proves.

    Args:
        images: the [images] section of the config file: image by name.
        variables: what every pod finds in its environment, over what its task asks for.
        secrets: by `group/key`.
        slots: pods that run at the same time; the replicas of a distributed task count as one.
        on_pod: called in a thread of its own when a pod has started.
        rules: how often tasks are tried.
        waits: how many seconds a pod waits for a machine, by its task's name and its attempt.
        pods: how pods are run; as processes by default.
        folder: where logs and pods lie; a temporary folder by default.
        keep: leave everything behind, for a look at it.
    """

    def __init__(
        self,
        *,
        images: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        slots: int = 1,
        on_pod: Callable[[Pod], Any] | None = None,
        rules: Rules | None = None,
        waits: Waits | None = None,
        pods: Launcher | None = None,
        folder: Path | None = None,
        keep: bool = False,
    ):
        self._images = dict(images or {})
        self._temporary = folder is None
        self.keep = keep
        self.folder = folder or Path(tempfile.mkdtemp(prefix="loopback-"))
        self.logs = self.folder / "logs"
        self.home = self.folder / "home"
        self.registry = Registry()
        self.catalog = Catalog()
        self.store = Store()
        self._runner = PodRunner(pods or ProcessPods(), on_pod=on_pod, keep=keep)
        self.secrets = dict(secrets or {})
        self.tasks = TaskRunner(
            store=self.store,
            catalog=self.catalog,
            pods=self._runner,
            folder=self.folder,
            slots=threading.Semaphore(slots),
            secrets=self.secrets,
            variables=dict(variables or {}),
            rules=rules or Rules(),
            waits=waits or at_once,
        )
        self._engine = Engine(self.registry, self.tasks)

    def __enter__(self) -> Cluster:
        for folder in (self.logs, self.home):
            folder.mkdir(parents=True, exist_ok=True)
        self.store.start()
        self._server, self.port = serve(Admin(self.registry, self._engine), DataProxy(self.store))
        self.config_file.write_text(self._config())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.stop()
        self._server.stop(grace=1).wait()
        self.store.stop()
        if self.keep:
            return
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            shutil.rmtree(self.folder / "pods", ignore_errors=True)

    @property
    def config_file(self) -> Path:
        """For `pyflyte -c`."""
        return self.folder / "flyte.config"

    @property
    def executions(self) -> list[Execution]:
        """All of them, oldest first."""
        return list(self._engine.executions.values())

    @property
    def pods(self) -> list[Pod]:
        """Every pod that has ended, in the order of their ends."""
        return list(self._runner.finished)

    def on_pod(self, hook: Callable[[Pod], Any] | None) -> None:
        """Set (or with None take away) what is called when a pod has started."""
        self._runner.on_pod = hook

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of a client: this machine's without its Flyte, AWS or MLflow settings."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)
        }
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.home),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        return inherited | own | self.store.environment() | variables

    def _config(self) -> str:
        images = "".join(f"{name} = {image}\n" for name, image in self._images.items())
        return f"[platform]\nurl = 127.0.0.1:{self.port}\ninsecure = True\n\n[images]\n{images}"
