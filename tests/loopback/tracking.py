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


@contextmanager
def mlflow_server(folder: Path, seconds: float = 120) -> Iterator[str]:
    """Run `mlflow server` with its database and artifacts in a folder; gives its address.

    Args:
        seconds: how long it may take to come up.

    Raises:
        RuntimeError: it did not come up; the message ends with what it printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port = listener.getsockname()[1]
    uri, log = f"http://{HOST}:{port}", folder / "server.log"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"),
        *("--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts"),
    ]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")
    }
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven processes for GenAI jobs
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(server, uri, log, seconds)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # it is not reaped yet: the group is its own
        server.wait()


def _wait_until_healthy(
    server: subprocess.Popen[bytes], uri: str, log: Path, seconds: float
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not _exited(server):
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    printed = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"mlflow server did not come up:\n{printed}")


def _exited(server: subprocess.Popen[bytes]) -> bool:
    """Whether it ended, without reaping it."""
    options = os.WEXITED | os.WNOWAIT | os.WNOHANG
    return os.waitid(os.P_PID, server.pid, options) is not None
