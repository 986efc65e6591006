"""A docker engine: the one that answers, or a private one for as long as it is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class CannotRun(Exception):
    """What this machine lacks; the checks are left out, not failed."""


@dataclass(frozen=True)
class Engine:
    """A client and the daemon it talks to."""

    client: str
    environment: dict[str, str]

    def call(self, *arguments: str, log: Path | None = None) -> str:
        """Run a docker command to its end and return what it prints.

        Raises:
            subprocess.CalledProcessError: it failed; its output is in the error, or in `log`.
        """
        done = self.tried(*arguments)
        if log:
            log.write_text(done.stdout + done.stderr)
        done.check_returncode()
        return done.stdout.strip()

    def tried(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, whatever comes of it."""
        return subprocess.run(
            [self.client, *arguments], env=self.environment, capture_output=True, text=True
        )

    def streamed(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A running docker command whose output is read as it comes."""
        return subprocess.Popen(
            [self.client, *arguments], env=self.environment, stdout=subprocess.PIPE
        )


@contextmanager
def found_engine(keep: bool = False) -> Iterator[Engine]:
    """The engine that DOCKER_HOST or the default socket leads to, else one started here.

    One that was started here is ended and removed afterwards, unless it is to be kept.
    """
    engine = _with_builder(os.environ.get("DOCKER_HOST"))
    if _answers(engine):
        yield engine
        return
    folder = Path(tempfile.mkdtemp(prefix="siqvl-engine-"))
    engine = _with_builder(f"unix://{folder}/docker.sock")
    daemon = _started(folder, engine)
    try:
        yield engine
    finally:
        if keep:
            print(f"kept: DOCKER_HOST=unix://{folder}/docker.sock")
        else:
            _removed(daemon, folder)


def answering_engine() -> Engine | None:
    """The engine that is up already, if there is one."""
    try:
        engine = _with_builder(os.environ.get("DOCKER_HOST"))
    except CannotRun:
        return None
    return engine if _answers(engine) else None


def _with_builder(host: str | None) -> Engine:
    """A client on the PATH that can build with BuildKit, else the first one, with the old builder.

    Clients up to 22 bring it along, later ones need the plugin buildx.
    """
    names = [Path(folder) / "docker" for folder in os.get_exec_path()]
    clients = [str(name) for name in names if os.access(name, os.X_OK)]
    if not clients:
        raise CannotRun("there is no docker client (Debian: apt-get install docker.io)")
    environment = os.environ | ({"DOCKER_HOST": host} if host else {})
    for client in clients:
        engine = Engine(client, environment | {"DOCKER_BUILDKIT": "1"})
        version = engine.tried("--version").stdout.removeprefix("Docker version ").split(".")[0]
        brings_it = version.isdigit() and int(version) < 23
        if brings_it or not engine.tried("buildx", "version").returncode:
            return engine
    return Engine(clients[0], environment | {"DOCKER_BUILDKIT": "0"})


def _answers(engine: Engine) -> bool:
    return engine.tried("version", "--format", "{{.Server.Version}}").returncode == 0


def _started(folder: Path, engine: Engine) -> subprocess.Popen[bytes]:
    """A daemon that leaves the machine's network alone: containers share it or have none."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        raise CannotRun("no docker engine answers, and starting one takes root and dockerd")
    places = [f"--{name}={folder / name}" for name in ("data-root", "exec-root", "pidfile")]
    network = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                "dockerd",
                *places,
                f"--host=unix://{folder}/docker.sock",
                *network,
                "--ip-masq=false",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    for _ in range(150):
        if _answers(engine):
            return daemon
        if daemon.poll() is not None:
            break
        time.sleep(0.2)
    daemon.terminate()
    raise CannotRun(f"dockerd does not start here, see {folder / 'dockerd.log'}")


def _removed(daemon: subprocess.Popen[bytes], folder: Path) -> None:
    daemon.terminate()
    daemon.wait(timeout=60)
    for mount in (folder / "exec-root" / "netns").glob("*"):  # left behind by every container
        subprocess.run(["umount", str(mount)], check=False)
    shutil.rmtree(folder, ignore_errors=True)
