"""How a pod starts and ends: one process unpacks the code and runs it, where flytekit has two.

`pyflyte-fast-execute` imports flytekit and the client of the blob store to fetch the code, and then
starts `pyflyte-execute`, which imports both anew. In a pod whose code is not imported yet, one
process can do both. The program that does so is the text of two functions, given to Python in the
arguments of the task: an image may hold no code of ours, or older code.

Python looks for garbage again and again while thousands of modules are imported, and whenever a few
hundred objects more are alive it goes through all of theirs; at the end it takes them apart. That
is a quarter of what a pod of a small task costs, each. So a pod looks seldom, and what is imported
is never looked through.
"""

from __future__ import annotations

import gc
import importlib
import inspect

from flytekit.configuration import SerializationSettings
from flytekit.tools import translator


def import_at_once(*modules: str) -> None:
    """Import modules that take long, without looking for garbage meanwhile.

    In a pod they are not looked through later either; elsewhere others' garbage would be kept.
    """
    from tasks.contracts import on_cluster  # which declares types, see `tasks/__init__.py`

    was_on = gc.isenabled()
    gc.disable()
    try:
        for module in modules:
            importlib.import_module(module)
    finally:
        if on_cluster():
            gc.freeze()
        if was_on:
            gc.enable()


def _start() -> None:
    """Be `pyflyte-fast-execute`, and then the program that it would start; end as that does."""
    import gc
    import importlib
    import os
    import signal
    import sys

    gc.disable()  # until the task is imported
    from flytekit.bin import entrypoint

    programs = {"pyflyte-execute": entrypoint.execute_task_cmd}
    programs["pyflyte-map-execute"] = entrypoint.map_execute_task_cmd
    in_another_process, dispatch = entrypoint._run_subprocess, entrypoint._dispatch_execute

    def run(command: list[str], env: dict[str, str]) -> int:
        """Run the task in here; flytekit gives the place of its code as the last of PYTHONPATH."""
        if command[0] not in programs:
            return in_another_process(command, env)
        paths = env["PYTHONPATH"].split(os.pathsep)
        sys.path.insert(len(paths) - 1, paths[-1])
        os.environ["PYTHONPATH"] = env["PYTHONPATH"]
        importlib.invalidate_caches()  # folders that were empty then
        # the first process of a container is ended by no signal that it does not handle
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
        sys.argv[:] = command
        programs[command[0]].main(command[1:], command[0])
        return 0

    def dispatched(ctx, load_task, *args, **named):  # type: ignore[no-untyped-def]
        def loaded():  # type: ignore[no-untyped-def]
            try:
                return load_task()
            finally:
                gc.freeze()
                gc.set_threshold(10_000)  # instead of 700 new objects
                gc.enable()

        return dispatch(ctx, loaded, *args, **named)

    entrypoint._run_subprocess, entrypoint._dispatch_execute = run, dispatched
    code = None
    try:
        entrypoint.fast_execute_task_cmd()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    _end(code or 0)


def _end(code: int) -> None:
    """Python's own end, but for taking apart all that was imported."""
    import atexit
    import contextlib
    import os
    import sys
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()  # what goes to stderr is there
    os._exit(code & 255)


PROGRAM = f"{inspect.getsource(_end)}\n{inspect.getsource(_start)}\n_start()\n"

_prefix = translator.get_command_prefix_for_fast_execute


def _start_in_one_process(settings: SerializationSettings) -> list[str]:
    """flytekit's own arguments of a pod whose code is shipped, but for the program."""
    return ["python", "-P", "-c", PROGRAM, *_prefix(settings)[1:]]


# flytekit has no setting for it.
translator.get_command_prefix_for_fast_execute = _start_in_one_process
