"""README's commands that serve a model with MLflow, as they stand; and wrong requests."""

import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from siqvl.recipe import Recipe, Stage
from siqvl.registry.versions import Registry
from siqvl.tracking.runs import client, start_run
from tests.serving.large_pictures import large_pictures

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Serve it\n")[1]
SERVE, ASK, *_ = re.findall(r"```bash\n(.*?)```", SECTION.split("\n## ")[0], flags=re.DOTALL)
SECONDS = 180
#: Notes whatever leaves this machine, and stops it.
OFFLINE = """
import socket
def _only_here(name, do):
    def checked(*arguments):
        place = arguments[-1] if name == "connect" else arguments[:1]
        if isinstance(place, tuple) and place[0] not in (None, "", "127.0.0.1", "localhost", "::1"):
            open({log!r}, "a").write(repr(place) + "\\n")
            raise OSError("no network")
        return do(*arguments)
    return checked
socket.socket.connect = _only_here("connect", socket.socket.connect)
_resolve = socket.getaddrinfo
def _getaddrinfo(host, *arguments, **options):
    if host not in (None, "", "127.0.0.1", "localhost", "::1"):
        open({log!r}, "a").write(repr(host) + "\\n")
        raise OSError("no network")
    return _resolve(host, *arguments, **options)
socket.getaddrinfo = _getaddrinfo
"""


@dataclass(frozen=True)
class Served:
    """A running `mlflow models serve`."""

    folder: Path  # it was started in, with mlflow.db
    port: int
    environment: dict[str, str]
    left: Path  # what it tried to reach elsewhere
    group: int  # of its processes

    def ask(self, body: Any, kind: str = "application/json") -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", data, {"Content-Type": kind}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    _register(trained, folder)
    left = folder / "network.txt"
    (folder / "offline").mkdir()
    (folder / "offline" / "sitecustomize.py").write_text(OFFLINE.format(log=str(left)))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    kept = ("HOME", "OMP_NUM_THREADS", "LANG", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "offline"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "300",  # on a busy machine, too
    }
    with (folder / "server.log").open("wb") as output:
        server = subprocess.Popen(
            ["bash", "-c", SERVE.replace("5001", str(port))],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(server, port, folder / "server.log")
        yield Served(folder, port, environment, left, server.pid)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _register(trained, folder: Path) -> None:
    """The champion of the store in a folder, under the name that the tiny recipe gives it."""
    content = trained.recipe.model_dump(mode="json")
    content["tracking"]["uri"] = f"sqlite:///{folder}/mlflow.db"
    recipe = Recipe.model_validate(content)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        log = start_run(recipe, "dpo")
        registry = Registry(log.uri, Recipe.load(ROOT / "recipes/tiny.yaml").tracking.model_name)
        registry.give("champion", registry.register(log, trained.checkpoint(Stage.DPO)))


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"the model is not served:\n{log.read_text(errors='replace')[-3000:]}")


def picture() -> Image.Image:
    image = Image.new("RGB", (200, 160), "white")
    ImageDraw.Draw(image).rectangle((60, 40, 140, 120), fill="red")
    return image


def encoded(image: Image.Image, format: str = "PNG") -> str:
    stream = io.BytesIO()
    image.save(stream, format)
    return base64.b64encode(stream.getvalue()).decode()


GOOD = {"image": encoded(picture()), "question": "what color is the square?"}


def printed(served: Served, *command: str) -> str:
    """What a command beside the server prints."""
    return subprocess.run(
        command,
        cwd=served.folder,
        env=served.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def test_the_commands_of_the_readme(served: Served) -> None:
    picture().save(served.folder / "picture.png")
    answered = printed(served, "bash", "-c", ASK.replace("5001", str(served.port)))
    (answer,) = json.loads(answered)["predictions"]
    assert set(answer) == {"answer", "finished"}
    assert served.ask({"dataframe_records": [GOOD]}) == (200, {"predictions": [answer]})


def test_every_way_to_ask_gives_the_same_answer(served: Served) -> None:
    status, expected = served.ask({"dataframe_records": [GOOD]})
    assert status == 200
    columns = {"columns": list(GOOD), "data": [list(GOOD.values())]}
    assert served.ask({"dataframe_split": columns}) == (200, expected)
    assert served.ask({"inputs": [GOOD]}) == (200, expected)
    turns = [{"role": "user", "content": GOOD["question"]}]
    row = {"image": f"data:image/png;base64,{GOOD['image']}", "messages": turns}
    assert served.ask({"dataframe_records": [row]}) == (200, expected)
    assert served.ask({"dataframe_records": [GOOD, row]}) == (
        200,
        {"predictions": expected["predictions"] * 2},
    )
    short = served.ask({"dataframe_records": [GOOD], "params": {"max_new_tokens": 1}})
    assert short[0] == 200


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "empty picture": (
        {"image": "", "question": "what?"},
        "row 1: `image` is empty: send the base64 text of a picture file",
    ),
    "unknown columns alone": (
        {"picture": GOOD["image"]},
        "the request has no rows with columns of image, images, path, question, messages",
    ),
    "broken base64": (
        {**GOOD, "image": GOOD["image"][:-1]},
        "row 1: `image` is no base64 text of a picture file (addresses are not fetched)",
    ),
    "no image": (
        {**GOOD, "image": base64.b64encode(b"#!/bin/sh").decode()},
        "row 1: the picture cannot be decoded; send one of PNG, JPEG, WEBP, BMP, GIF, TIFF, "
        "AVIF, JPEG2000",
    ),
    "too large": (
        {**GOOD, "image": encoded(Image.new("1", (10_000, 10_000)))},
        "row 1: image too large: 10000x10000 pixels, 50000000 are allowed",
    ),
    "empty question": ({**GOOD, "question": ""}, "row 1: empty question or messages"),
    "no question": (
        {"image": GOOD["image"]},
        "row 1: it has to have either `question` or `messages`",
    ),
    "a file of the server": (
        {"path": "/etc/hostname", "question": "what?"},
        "row 1: `path` is read only where the model was loaded with allow_paths: true in its "
        "model_config; send the picture itself as `image`",
    ),
}


@pytest.mark.parametrize(("row", "sentence"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_400_with_one_sentence(
    served: Served, row: dict[str, Any], sentence: str
) -> None:
    status, answer = served.ask({"dataframe_records": [row]})
    assert (status, answer["message"]) == (400, sentence)
    assert answer["error_code"] == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("name", ["max_new_tokens", "temperature", "seed"])
def test_a_param_of_null_is_400_with_one_sentence(served: Served, name: str) -> None:
    status, answer = served.ask({"dataframe_records": [GOOD], "params": {name: None}})
    sentence = f"params.{name} is null, expected a number; or leave it out"
    assert (status, answer["message"]) == (400, sentence)
    assert "stack_trace" not in answer


def test_params_of_null_are_none(served: Served) -> None:
    expected = served.ask({"dataframe_records": [GOOD]})
    assert served.ask({"dataframe_records": [GOOD], "params": None}) == expected


def test_rows_of_no_and_of_several_pictures(served: Served) -> None:
    """And typed parts, beside rows that have none of it."""
    uri = f"data:image/png;base64,{GOOD['image']}"
    part = {"type": "image_url", "image_url": {"url": uri}}
    text = {"type": "text", "text": GOOD["question"]}
    rows = [
        GOOD,
        {"question": GOOD["question"]},
        {"images": [GOOD["image"]] * 2, "question": "are <image> and <image> alike?"},
        {"messages": [{"role": "user", "content": [part, text]}]},
    ]
    status, answer = served.ask({"dataframe_records": rows})
    assert status == 200, answer
    first, _, _, last = answer["predictions"]
    assert first == last
    for row, found in zip(rows, answer["predictions"], strict=True):
        assert served.ask({"dataframe_records": [row]}) == (200, {"predictions": [found]})


def test_params_out_of_range_are_400(served: Served) -> None:
    request = {"dataframe_records": [GOOD], "params": {"max_new_tokens": 100_000}}
    status, answer = served.ask(request)
    assert status == 400
    assert answer["message"] == (
        "params.max_new_tokens is 100000, but an answer has 1 to 256 tokens"
    )


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        ({"rows": [GOOD]}, "application/json", 400),
        ({"dataframe_records": [{**GOOD, "question": 5}]}, "application/json", 400),
        ({"dataframe_records": [GOOD], "params": {"seed": "x"}}, "application/json", 400),
    ],
    ids=["no JSON", "no rows", "a number for text", "a text for a number"],
)
def test_what_mlflow_itself_refuses_is_400(
    served: Served, body: Any, kind: str, status: int
) -> None:
    found, answer = served.ask(body, kind)
    assert found == status
    assert answer["message"]


def kilobytes(served: Served, name: str) -> int:
    """A figure of /proc/PID/status, summed up over the server's processes."""
    total = 0
    for status in processes(served, "status"):
        total += int(status.read_text().split(f"{name}:")[1].split()[0])
    return total


def processes(served: Served, file: str) -> Iterator[Path]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # one that has just ended
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == served.group:
                    yield folder / file


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_sixteen_large_pictures_over_http_stay_below_a_gigabyte(
    served: Served, tmp_path: Path
) -> None:
    assert served.ask({"dataframe_records": [GOOD]})[0] == 200
    rows = [
        {**GOOD, "image": base64.b64encode(file.read_bytes()).decode()}
        for file in large_pictures(tmp_path)
    ]
    body = json.dumps({"dataframe_records": rows, "params": {"max_new_tokens": 4}}).encode()
    idle = kilobytes(served, "VmRSS")
    for peaks in processes(served, "clear_refs"):
        peaks.write_text("5")  # begin anew
    status, answer = served.ask(body)
    assert (status, len(answer["predictions"])) == (200, len(rows))
    peak = (kilobytes(served, "VmHWM") - idle) * 1024
    print(f"{len(body) / 2**20:,.1f} MiB asked, peak {peak / 2**20:,.0f} MiB above idle")
    assert peak < 10**9


def test_it_answers_on_after_wrong_requests(served: Served) -> None:
    assert served.ask({"dataframe_records": [GOOD]})[0] == 200


def test_loading_and_answering_reach_nothing_elsewhere(served: Served) -> None:
    assert served.ask({"dataframe_records": [GOOD]})[0] == 200
    assert not served.left.exists()
    tried = [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80))"]
    assert subprocess.run(tried, env=served.environment, capture_output=True).returncode == 1
    assert "192.0.2.1" in served.left.read_text()  # it would have been noted


def test_it_runs_the_code_that_was_registered_with_it(served: Served) -> None:
    """Also where another siqvl, or none, is installed."""
    (model,) = client(f"sqlite:///{served.folder}/mlflow.db").search_model_versions("")
    script = (
        "import sys, mlflow; mlflow.pyfunc.load_model(sys.argv[1]); "
        "import siqvl.serving.answering as used; print(used.__file__)"
    )
    used = printed(served, sys.executable, "-c", script, model.source).strip().splitlines()[-1]
    assert used.endswith("/artifacts/code/siqvl/serving/answering.py")
