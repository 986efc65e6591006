"""Pods: one run of a task's container arguments, as a process here or in a container.

`ProcessPods` and `ContainerPods` are two ways to the same thing; `Launcher` says what that is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

SECRETS = "/etc/flyte/secrets"  # in a container
OUT_OF_MEMORY = "OOMKilled"  # Kubernetes' reason
#: `terminationGracePeriodSeconds` of Flyte's pods (seen with 1.16.8): it is Kubernetes' own.
GRACE = 30.0
POLL_SECONDS = 0.02


@dataclass
class Pod:
    """A pod, before, while and after it runs. Drills get this object when it starts."""

    node: str  # id of the node: `n2-0-dn1` is `dn1` below attempt 0 of `n2`
    task: str
    attempt: int
    index: int | None  # of the element in an array node, of the replica in a distributed task
    arguments: Sequence[str]
    variables: dict[str, str]
    image: str
    folder: Path  # the pod's own: `work`, `tmp` and `home` lie in it
    log: Path  # stdout and stderr
    checkpoint: str  # s3:// prefix of this attempt
    list_keys: Callable[[str], list[str]]
    container: str = ""  # its name, where it is not that of the pod
    interruptible: bool = False
    grace: float = GRACE  # seconds between SIGTERM and SIGKILL
    started: float = 0.0
    seconds: float = 0.0
    exit_code: int | None = None
    reason: str = "Error"  # what Kubernetes says of an exit code that is not 0
    gone: bool = False  # its object, with its node
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    launcher: Launcher | None = field(default=None, repr=False)
    deleted: bool = False  # from outside; it has its grace, and Flyte does not wait for its end
    told: float | None = None  # when it got SIGTERM

    @property
    def name(self) -> str:
        """Unique within the cluster, and a name that containers may have."""
        return self.folder.name

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    def checkpoint_keys(self) -> list[str]:
        """The addresses of what this attempt has saved so far."""
        return self.list_keys(self.checkpoint)

    def printed(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL for every process of the pod: no handler runs, nothing is cleaned up."""
        if self.launcher and self.exit_code is None:
            self.launcher.kill(self)

    def run_out_of_memory(self) -> None:
        """End it as the kernel does where its container has used more than its limit."""
        self.reason = OUT_OF_MEMORY
        self.kill()

    def drain(self, grace: float | None = None) -> None:
        """Delete it as a drain does, or the reclaim of a spot node.

        Its first process gets SIGTERM, all of them SIGKILL when its grace is over. Flyte starts the
        next attempt at once, beside it (seen with 1.16.8).
        """
        self.grace = self.grace if grace is None else grace
        self.deleted = True
        self.terminate()

    def vanish(self) -> None:
        """Take it away with its node, the object in Kubernetes too."""
        self.gone = True
        self.kill()

    def terminate(self) -> None:
        """SIGTERM for its first process, once."""
        if self.launcher and self.exit_code is None and self.told is None:
            self.told = time.time()
            self.launcher.terminate(self)


class Launcher(Protocol):
    """A way to run pods."""

    def start(self, pod: Pod) -> subprocess.Popen[bytes]:
        """Start the pod; the process ends when the pod does, with its exit code."""

    def kill(self, pod: Pod) -> None:
        """End it at once. It may have ended by itself."""

    def terminate(self, pod: Pod) -> None:
        """SIGTERM for its first process."""


@dataclass(frozen=True)
class ProcessPods:
    """Pods as process groups on this machine, with the packages of one virtual environment.

    Args:
        bin: where `pyflyte-execute` and `python` are; by default beside this interpreter.
    """

    bin: Path = Path(sys.executable).parent

    def start(self, pod: Pod) -> subprocess.Popen[bytes]:
        own = {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(pod.home),
            "TMPDIR": str(pod.temporary),
        }
        executable = shutil.which(pod.arguments[0], path=own["PATH"]) or pod.arguments[0]
        with pod.log.open("wb") as log:
            return subprocess.Popen(
                [executable, *pod.arguments[1:]],
                cwd=pod.work,
                env=own | pod.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def terminate(self, pod: Pod) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pod.pid, signal.SIGTERM)

    def kill(self, pod: Pod) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pod.pid, signal.SIGKILL)
        for pid in _processes_with(f"TMPDIR={pod.temporary}"):  # those that left the group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _processes_with(variable: str) -> list[int]:
    """Processes whose environment has a variable (on Linux; elsewhere none is found)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if variable.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


@dataclass(frozen=True)
class ContainerPods:
    """Pods as containers of the task's image, on the network of this machine.

    Args:
        image: which image to run; empty for the one that the task (or the node) names.
        docker_host: DOCKER_HOST of the daemon; empty for the one of this environment.
        user: who runs the pod, never root: with the code unpacked over the image's working
            directory, that user must be able to write there.
        options: further options of `docker run`, `--read-only` for one.
    """

    image: str = ""
    docker_host: str = ""
    user: str = "1000:1000"
    options: tuple[str, ...] = ()
    docker: str = "docker"

    def start(self, pod: Pod) -> subprocess.Popen[bytes]:
        pod.temporary.chmod(0o1777)
        variables = {"HOME": "/tmp", "TMPDIR": "/tmp"} | pod.variables
        if "FLYTE_SECRETS_DEFAULT_DIR" in variables:
            variables["FLYTE_SECRETS_DEFAULT_DIR"] = SECRETS
        command = [
            *(self.docker, "run", "--rm", "--name", pod.name, "--network", "host"),
            *("--user", self.user, "--volume", f"{pod.temporary}:/tmp"),
            *("--volume", f"{pod.secrets}:{SECRETS}:ro"),
            *("--security-opt", "no-new-privileges", "--cap-drop", "ALL"),
            *(part for name in variables for part in ("--env", name)),
            *self.options,
            self.image or pod.image,
            *pod.arguments,
        ]
        with pod.log.open("wb") as log:
            return subprocess.Popen(
                command,
                env=self._environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, pod: Pod) -> None:
        self._signal(pod, "KILL")

    def terminate(self, pod: Pod) -> None:
        self._signal(pod, "TERM")

    def _signal(self, pod: Pod, name: str) -> None:
        command = [self.docker, "kill", "--signal", name, pod.name]
        subprocess.run(
            command, env=self._environment(), capture_output=True, timeout=60, check=False
        )

    def _environment(self) -> dict[str, str]:
        host = {"DOCKER_HOST": self.docker_host} if self.docker_host else {}
        return {**os.environ, **host}


@dataclass
class PodRunner:
    """Runs pods to their end and keeps what became of them."""

    launcher: Launcher
    on_pod: Callable[[Pod], Any] | None = None
    keep: bool = False
    running: list[Pod] = field(default_factory=list)
    finished: list[Pod] = field(default_factory=list)
    leaving: list[threading.Thread] = field(default_factory=list)  # those of `grace`

    def start(self, pod: Pod) -> None:
        for folder in (pod.work, pod.temporary, pod.home, pod.secrets):
            folder.mkdir(parents=True, exist_ok=True)
        pod.launcher, pod.started = self.launcher, time.time()
        pod.process = self.launcher.start(pod)
        self.running.append(pod)
        if self.on_pod:
            threading.Thread(target=self.on_pod, args=(pod,), daemon=True).start()

    def poll(self, pod: Pod) -> bool:
        """Whether it has ended; if so, whatever it left running is ended too."""
        if pod.exit_code is not None:
            return True
        # Left unreaped until its group is gone: the group's id cannot be given away before that.
        if not os.waitid(os.P_PID, pod.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            return False
        pod.kill()
        assert pod.process is not None
        code = pod.process.wait()
        pod.seconds = time.time() - pod.started
        pod.exit_code = 128 - code if code < 0 else code
        self.running.remove(pod)
        self.finished.append(pod)
        if not self.keep:
            shutil.rmtree(pod.folder, ignore_errors=True)
        return True

    def end(self, pod: Pod) -> None:
        """Kill it if it still runs, and wait until it is gone."""
        if pod.process is None or pod.exit_code is not None:
            return
        pod.kill()
        while not self.poll(pod):
            time.sleep(POLL_SECONDS)

    def kill_all(self) -> None:
        for pod in list(self.running):
            pod.kill()

    def wait(self) -> None:
        """Wait for pods whose attempts are over, now that they are killed."""
        self.kill_all()
        for thread in self.leaving:
            thread.join(timeout=30)


def merged(*groups: Mapping[str, str]) -> dict[str, str]:
    """Environment variables, later groups over earlier ones."""
    return {name: value for group in groups for name, value in group.items()}
