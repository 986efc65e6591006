"""`siqvl serve` as a process of its own, with what it holds in memory."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import click
import psutil

from benchmarks.generation import held_mib

START_SECONDS = 180


class Server:
    """A server at a port that it keeps when it is started again.

    Attributes:
        held: (seconds, MiB) while `watch` is on.
    """

    def __init__(self, checkpoint: Path, folder: Path, *options: str) -> None:
        self._checkpoint, self._options = checkpoint, options
        self._log = folder / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.held: list[tuple[float, float]] = []
        threading.Thread(target=self._look, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Starts it; returns the seconds until it was ready.

        Raises:
            ClickException: it ended, or is not ready in time.
        """
        start = time.monotonic()
        command = [sys.executable, "-m", "siqvl", "serve", str(self._checkpoint)]
        command += ["--port", f"{self.port}", *self._options]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while time.monotonic() - start < START_SECONDS and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.address}/ready", timeout=1):
                    return time.monotonic() - start
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise click.ClickException(self._log.read_text()[-2_000:])

    def end(self, with_signal: int = signal.SIGTERM) -> int:
        """Ends it; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=60)

    def mib(self) -> float:
        """What it holds now."""
        assert self.process is not None
        return held_mib(self.process.pid)

    def metric(self, name: str) -> float:
        """A figure of `/metrics`."""
        with urllib.request.urlopen(f"{self.address}/metrics") as answer:
            text = answer.read().decode()
        found = re.search(rf"^{re.escape(name)} ([\d.e+-]+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def faults(self) -> list[str]:
        """Lines of the log that tell of a fault."""
        lines = self._log.read_text().splitlines()
        return [line for line in lines if " ERROR " in line or line.startswith("Traceback")]

    def cpu_seconds(self) -> float:
        """What its threads have computed since it started."""
        assert self.process is not None
        used = psutil.Process(self.process.pid).cpu_times()
        return used.user + used.system

    def _look(self) -> None:
        while True:
            time.sleep(0.1)
            if self.process is not None and self.process.poll() is None:
                self.held.append((time.monotonic(), self.mib()))
