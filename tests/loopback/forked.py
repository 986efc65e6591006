"""Programs that start at once: forks of one process that has imported the heavy libraries.

Most of what a pod of a small recipe costs is importing torch, transformers and flytekit: eight
seconds of a core, thirty times in these tests. `forked_programs` pays that once. It imports the
libraries, and none of SiQ-VL's code, and then forks for every start of a program. Each program
still is a process of its own: its own session, folder, environment and code, and SIGKILL ends it.
What a library decides when it is imported was decided before, so tests of that start pods with
`ProcessPods` alone.

In `bin` lie stand-ins of the programs. They hand on arguments, folder, environment, standard
streams and SIGTERM, and end as the program does; one that is killed takes its program with it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = {
    "pyflyte": "flytekit.clis.sdk_in_container.pyflyte:main",
    "pyflyte-execute": "flytekit.bin.entrypoint:execute_task_cmd",
    "pyflyte-fast-execute": "flytekit.bin.entrypoint:fast_execute_task_cmd",
    "pyflyte-map-execute": "flytekit.bin.entrypoint:map_execute_task_cmd",
    "python": "",  # of which `python -m MODULE` alone is forked
}
LIBRARIES = (
    "torch",
    "torch.distributed.launcher.api",
    "torch._dynamo",
    "transformers.trainer",
    "transformers.integrations.integration_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.siglip.image_processing_siglip",
    "transformers.models.siglip.modeling_siglip",
    "accelerate",
    "datasets",
    "mlflow",
    "mlflow.pyfunc",
    "flytekit.bin.entrypoint",
    "flytekit.clis.sdk_in_container.pyflyte",
    "flytekitplugins.kfpytorch",
    "boto3",
    "s3fs",
    "jinja2",
    "pyarrow.parquet",
)
#: What the libraries read when they are imported.
VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "COLUMNS": "200",
    "NO_COLOR": "1",
}
#: Ends as the program does. Without `site`, it starts in a hundredth of a second.
STAND_IN = """\
#!{python} -IS
import json, os, signal, socket, sys
if {program!r} == "python" and sys.argv[1:2] != ["-m"]:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
def told(*_):
    try:
        connection.sendall(b"t")
    except OSError:  # it has just ended
        pass
request = json.dumps([{program!r}, sys.argv, os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(request)
    signal.signal(signal.SIGTERM, told)
    code = int(connection.recv(16) or 255)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def forked_programs(folder: Path, owner: int) -> None:
    """Start the process that forks; it ends with the process `owner`.

    Args:
        folder: `bin` with the stand-ins is made in it, and it is what the libraries take for home.
    """
    # not in the folder: the address of a socket may have no more than 107 characters
    address = Path(tempfile.mkdtemp(prefix="forked-")) / "socket"
    bin, printed = folder / "bin", folder / "forked.log"
    bin.mkdir()
    for program in PROGRAMS:
        text = STAND_IN.format(python=sys.executable, program=program, address=str(address))
        (bin / program).write_text(text)
        (bin / program).chmod(0o755)
    own = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": f"{bin}:{os.defpath}"}
    with printed.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(address), str(owner)],
            cwd=folder,
            env=VARIABLES | own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    end = time.monotonic() + 300
    while not address.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(printed.read_text(errors="replace"))
        time.sleep(0.05)


def serve(address: Path, owner: int) -> None:
    """Fork for each connection; returns in the program's own process alone."""
    # programs get what a terminal gives them, also where tests run below `nohup` or behind `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(f"{address}.new")
        listener.listen(64)
        owned = os.pidfd_open(owner)
        Path(f"{address}.new").rename(address)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
        while True:
            ready, _, _ = select.select([listener, owned], [], [])
            if owned in ready:
                shutil.rmtree(address.parent, ignore_errors=True)
                os._exit(0)
            connection, _ = listener.accept()
            if os.fork():
                connection.close()
                continue
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            break
    length, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = b""
    while len(request) < int.from_bytes(length, "big"):
        request += connection.recv(1 << 16)
    pid = os.fork()
    if pid:
        _wait(pid, connection)
    connection.close()
    end_with(lambda: become(*json.loads(request), streams))


def _wait(pid: int, connection: socket.socket) -> None:
    """Tell the stand-in how the program ended, or end the program when the stand-in is gone."""
    ended = os.pidfd_open(pid)
    while ended not in select.select([ended, connection], [], [])[0]:
        told = b""  # the stand-in is gone
        with contextlib.suppress(OSError):
            told = connection.recv(1)
        with contextlib.suppress(ProcessLookupError):
            if told:
                os.kill(pid, signal.SIGTERM)
            else:
                os.killpg(pid, signal.SIGKILL)
                break
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(str(code).encode())
    os._exit(0)


def become(
    program: str, argv: list[str], folder: str, environment: dict[str, str], streams: list[int]
) -> None:
    """Take on all that a program's process would have been started with, and run it."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = argv
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    tempfile.tempdir = None
    # what depends on the home and the temporary folder of a process
    for name in ("huggingface_hub.constants", "datasets.config"):
        importlib.reload(sys.modules[name])
    _forget_flytekits_places()
    if program == "python":
        sys.path.insert(0, folder)
        sys.argv[:] = argv[2:]
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
        sys.exit()
    module, _, name = PROGRAMS[program].partition(":")
    sys.exit(getattr(importlib.import_module(module), name)())


def end_with(program: Callable[[], object]) -> None:
    """Run the program and end the process as Python does, but for freeing what it holds.

    To free what is shared with the process that forked, page for page, takes two seconds of a core.
    """
    code: object = 0
    try:
        program()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 255)


def _forget_flytekits_places() -> None:
    """Let flytekit see the environment again: at its import it read how to reach its storage."""
    from flytekit.configuration import DataConfig
    from flytekit.core import context_manager, data_persistence

    folder = tempfile.mkdtemp(prefix="flyte-")
    provider = data_persistence.FileAccessProvider(
        local_sandbox_dir=f"{folder}/sandbox",
        raw_output_prefix=f"{folder}/raw",
        data_config=DataConfig.auto(),
    )
    data_persistence.flyte_tmp_dir = folder
    data_persistence.default_local_file_access_provider = provider
    context_manager.default_local_file_access_provider = provider
    context_manager.FlyteContextManager.initialize()


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # nor does a collection touch it
    serve(Path(sys.argv[1]), int(sys.argv[2]))
