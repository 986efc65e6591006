"""A real MLflow server on loopback, for tests of what pods log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOST = "127.0.0.1"


class MlflowServer:
    """`mlflow server` with its artifacts in a folder, on a port that it keeps.

    Args:
        store: address of its database; by default a sqlite file in the folder.
    """

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.folder = folder
        self.store = store or f"sqlite:///{folder}/mlflow.db"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as listener:
            listener.bind((HOST, 0))
            self.port = listener.getsockname()[1]

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self, seconds: float = 120) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it did not come up; the message ends with what it printed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port)),
            *("--backend-store-uri", self.store, "--workers", "1"),
            *("--artifacts-destination", str(self.folder / "artifacts"), "--serve-artifacts"),
        ]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")
        }
        # seven processes for GenAI jobs
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_healthy(seconds)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # not reaped yet: the group is its own
            self._process.wait()
            self._process = None

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _wait_until_healthy(self, seconds: float) -> None:
        assert self._process is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end and not _exited(self._process):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        printed = self._log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"mlflow server did not come up:\n{printed}")


@contextmanager
def mlflow_server(folder: Path, store: str | None = None) -> Iterator[str]:
    """A server that runs as long as the context does; gives its address."""
    server = MlflowServer(folder, store)
    try:
        server.start()
        yield server.uri
    finally:
        server.kill()


def _exited(server: subprocess.Popen[bytes]) -> bool:
    """Whether it ended, without reaping it."""
    options = os.WEXITED | os.WNOWAIT | os.WNOHANG
    return os.waitid(os.P_PID, server.pid, options) is not None
