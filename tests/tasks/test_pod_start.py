"""A pod's one process does what flytekit's two do, and imports what its task needs alone."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from flyteidl.core import literals_pb2
from flytekit.configuration import FastSerializationSettings, ImageConfig, SerializationSettings
from flytekit.tools.translator import prefix_with_fast_execute

from tasks.pod_start import PROGRAM

BIN = Path(sys.executable).parent
SHIPPED = """
import gc, os, sys, threading, time
from flytekit import task

@task
def told(x: int) -> str:
    os.environ["IN_TASK"] = "1"
    threading.Thread(target=lambda: (time.sleep(0.2), print("a thread ended", flush=True))).start()
    if x == 2:
        raise ValueError("two is too many")
    if x == 3:
        print("waiting", flush=True)
        time.sleep(600)
    place = os.path.relpath(__file__)
    seldom = gc.get_threshold()[0] > 700 and gc.get_freeze_count() > 10_000
    print("looks for garbage seldom", seldom, flush=True)
    paths = [path for path in sys.path if path == os.environ["PYTHONPATH"]]
    return f"{x} {place} {paths == [os.getcwd()]} {gc.isenabled()} {sys.argv[0].split('/')[-1]}"
"""


def arguments(folder: Path) -> list[str]:
    """What follows the name of the program."""
    archive = folder / "code.tar.gz"
    (folder / "shipped.py").write_text(SHIPPED)
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder / "shipped.py", arcname="shipped.py")
    resolver = "flytekit.core.python_auto_container.default_task_resolver"
    execute = ["pyflyte-execute", "--inputs", str(folder / "inputs.pb")]
    execute += ["--output-prefix", str(folder / "out"), "--raw-output-data-prefix", str(folder)]
    execute += ["--resolver", resolver, "--", "task-module", "shipped", "task-name", "told"]
    return ["--additional-distribution", str(archive), "--dest-dir", ".", "--", *execute]


def started(program: list[str], folder: Path, x: int) -> subprocess.Popen[str]:
    for name in ("work", "out"):
        (folder / name).mkdir(parents=True)
    given = literals_pb2.LiteralMap()
    given.literals["x"].scalar.primitive.integer = x
    (folder / "inputs.pb").write_bytes(given.SerializeToString())
    return subprocess.Popen(
        [*program, *arguments(folder)],
        cwd=folder / "work",
        env={"PATH": f"{BIN}:{os.defpath}", "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


ONE = ["python", "-P", "-c", PROGRAM]
TWO = ["pyflyte-fast-execute"]


def test_one_process_does_what_two_do(tmp_path: Path) -> None:
    found = []
    for name, program in (("one", ONE), ("two", TWO)):
        process = started(program, tmp_path / name, 1)
        printed = process.communicate(timeout=300)[0]
        assert process.returncode == 0, printed
        assert "a thread ended" in printed  # it is waited for
        assert f"looks for garbage seldom {program is ONE}" in printed
        made = literals_pb2.LiteralMap.FromString((tmp_path / name / "out/outputs.pb").read_bytes())
        found.append(made.literals["o0"].scalar.primitive.string_value)
    assert found == ["1 shipped.py True True pyflyte-execute"] * 2


def test_a_task_that_fails_says_so_in_its_error_file(tmp_path: Path) -> None:
    process = started(ONE, tmp_path / "one", 2)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed
    assert b"two is too many" in (tmp_path / "one/out/error.pb").read_bytes()


def test_sigterm_ends_it_also_as_the_first_process_of_a_container(tmp_path: Path) -> None:
    process = started(ONE, tmp_path / "one", 3)
    assert process.stdout is not None
    while "waiting" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert time.monotonic() - begin < 30
    process.stdout.close()


def test_its_program_is_what_pods_are_given() -> None:
    shipped = FastSerializationSettings(True, ".", "s3://bucket/code.tar.gz")
    settings = SerializationSettings(ImageConfig.auto(), fast_serialization_settings=shipped)
    made = prefix_with_fast_execute(settings, ["pyflyte-execute"])
    where = ["--additional-distribution", "s3://bucket/code.tar.gz", "--dest-dir", "."]
    assert made == [*ONE, *where, "--", "pyflyte-execute"]
    for of_others in ("{{", "$("):  # what FlytePropeller and the kubelet would fill in
        assert of_others not in PROGRAM
    json.dumps(made)


#: Modules that take a tenth of a second of a core, or much more.
HEAVY = (
    "torch",
    "transformers",
    "mlflow",
    "pandas.core",
    "datasets",
    "sqlalchemy",
    "peft",
)


@pytest.mark.parametrize("module", ["tasks.pipeline_run", "workflows.full_pipeline"])
def test_what_opens_and_plans_a_pipeline_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
