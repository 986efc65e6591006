"""Takes the pictures in docs/images: two small pipelines in a real MLflow, as its pages show them.

python -m docs.screenshots FOLDER

Runs and server live in FOLDER; a second call photographs what is there already. It needs Chromium
(Debian's package `chromium`), and prints what `siqvl runs compare` says of the two.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import websocket
import yaml
from PIL import Image

from siqvl.tracking.runs import client
from tests.loopback.tracking import mlflow_server

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
EXPERIMENT = "screenshots"
WIDTH, MOST_BYTES = 1400, 200_000
SECONDS = 60  # that a page may take
#: Learning rates of the second stage, by the name of the recipe.
RATES = {"rate-1e-3": 1.0e-3, "rate-1e-4": 1.0e-4}
#: Steps and rows of each stage: enough to see a difference, in a minute or two.
SIZES = {
    "projector_alignment": (150, 2000),
    "vqa_sft": (300, 4000),
    "cot_sft": (60, 1000),
    "dpo": (20, 400),
}
#: Looks for charts as one would type it: the page is React's, which has its own idea of a value.
SEARCH = """
const box = document.querySelector('input[placeholder="Search metric charts"]');
const value = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value');
value.set.call(box, 'train/(loss$|learning_rate|grad_norm|tokens_per_second|data_wait|padding)');
box.dispatchEvent(new Event('input', {bubbles: true}));
"""
#: Leaves the parameters and metrics that differ, below the plots.
DIFFERENCES = """
const switches = document.querySelectorAll('[role=switch]');
for (const only of switches) only.click();
switches[0].scrollIntoView({block: 'center'});
"""
#: Clicks the newest pipeline's arrow.
UNFOLD = "document.querySelector('button[data-component-id*=runnamecellrenderer]').click()"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-port=0", "--remote-allow-origins=*"),
]


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    with mlflow_server(folder / "server") as uri:
        for name, rate in RATES.items():
            if not pipelines(uri, name):
                run_pipeline(folder, uri, name, rate)
        parents = [pipelines(uri, name)[0] for name in RATES]
        compared = [
            *(sys.executable, "-m", "siqvl", "runs", "compare", *parents),
            *("--tracking-uri", uri, "--experiment", EXPERIMENT),
        ]
        subprocess.run(compared, cwd=ROOT, check=True)
        with browser() as page:
            take_all(page, uri, parents)


def pipelines(uri: str, recipe: str) -> list[str]:
    """Ids of the pipelines of a recipe that finished, the newest first."""
    store = client(uri)
    experiment = store.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    wanted = (
        f"tags.`siqvl.recipe` = '{recipe}' and tags.`siqvl.kind` = 'pipeline' "
        "and attributes.status = 'FINISHED'"
    )
    return [run.info.run_id for run in store.search_runs([experiment.experiment_id], wanted)]


def run_pipeline(folder: Path, uri: str, name: str, rate: float) -> None:
    """The tiny recipe with fewer rows, steps and questions; nothing is taken from the cache."""
    content: dict[str, Any] = {
        "base": "recipes/tiny.yaml",
        "name": name,
        "output_dir": str(folder / "outputs"),
        "tracking": {"experiment": EXPERIMENT, "samples_every": 50},
        "stages": {},
        "evaluation": {
            "random_tower": False,
            "likelihood_control": False,
            "gates": [],
            "champion_benchmark": "multistep-direct",
        },
    }
    shipped = yaml.safe_load((ROOT / "recipes" / "tiny.yaml").read_text(encoding="utf-8"))
    for stage, (steps, rows) in SIZES.items():
        sources = [one | {"max_samples": rows} for one in shipped["stages"][stage]["sources"]]
        content["stages"][stage] = {"max_steps": steps, "sources": sources[:1]}
    content["stages"]["vqa_sft"]["learning_rate"] = rate
    content["stages"]["dpo"]["sampled"] = None
    benchmarks = shipped["evaluation"]["benchmarks"][:3]
    for benchmark in benchmarks:
        benchmark["source"]["max_samples"] = 500
    content["evaluation"]["benchmarks"] = benchmarks
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    pyflyte = Path(sys.executable).with_name("pyflyte")
    command = [str(pyflyte), "run", "workflows/full_pipeline.py", "full_pipeline"]
    environment = {"MLFLOW_TRACKING_URI": uri, "FLYTE_LOCAL_CACHE_ENABLED": "false"}
    subprocess.run(
        [*command, "--recipe", str(path)], cwd=ROOT, env=os.environ | environment, check=True
    )


def take_all(page: Page, uri: str, parents: list[str]) -> None:
    store = client(uri)
    parent = store.get_run(parents[0])
    experiment = parent.info.experiment_id
    children = store.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parents[-1]}'")
    stage = next(run.info.run_id for run in children if run.info.run_name == "vqa_sft")
    runs = f"{uri}/#/experiments/{experiment}/runs"
    one = f"{runs}/{stage}"
    ids, experiments = quote(json.dumps(parents)), quote(json.dumps([experiment]))

    page.take("runs", runs, ready=parent.info.run_name, height=820, script=UNFOLD)
    compare = f"{uri}/#/compare-runs?runs={ids}&experiments={experiments}"
    page.take("compare", compare, ready="Show diff only", height=1000, script=DIFFERENCES)
    page.take("charts", f"{one}/model-metrics", ready="padding_share", height=900, script=SEARCH)
    page.take("samples", f"{one}/artifacts/samples.json", ready="trained_on", height=900)
    model = parent.data.params["tracking.model_name"]
    page.take("versions", f"{uri}/#/models/{model}", ready="candidate", height=800)


class Page:
    """A tab, driven by the DevTools protocol."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=SECONDS)
        self._number = 0
        self.call("Page.enable")
        # or a panel about language models covers a third of every page
        closed = "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');"
        closed += "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
        self.call("Page.addScriptToEvaluateOnNewDocument", source=f"try {{{closed}}} catch {{}}")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(request))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._number:
                return answer["result"]

    def evaluate(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + SECONDS
        while not self.evaluate(f"document.body.innerText.includes({json.dumps(text)})"):
            if time.monotonic() > end:
                shown = self.evaluate("document.body.innerText")
                raise RuntimeError(f"the page never showed {text!r} but:\n{shown}")
            time.sleep(0.3)

    def take(self, name: str, address: str, *, ready: str, height: int, script: str = "") -> None:
        """Photograph a page that shows a text; `script` is run on it before."""
        size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url="about:blank")  # another #fragment alone loads nothing
        self.call("Page.navigate", url=address)
        self.wait_for(ready)
        time.sleep(4)  # charts and pictures come after the text
        if script:
            self.evaluate(script)
            time.sleep(2)
        # the tools of plots, which show where a pointer is, and here everywhere
        self.evaluate("document.querySelectorAll('.modebar').forEach(tools => tools.remove())")
        shot = self.call("Page.captureScreenshot", format="png")
        save(base64.b64decode(shot["data"]), IMAGES / f"{name}.png")


def save(png: bytes, path: Path) -> None:
    """With as many colours as MOST_BYTES allow."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for colors in (256, 128, 64, 32):
        picture.quantize(colors, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            break
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


@contextmanager
def browser() -> Iterator[Page]:
    """A headless Chromium of its own."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if program is None:
        raise SystemExit("docs/screenshots.py needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        chromium = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            port = _port(Path(profile) / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = json.load(answer)
            yield Page(next(tab for tab in tabs if tab["type"] == "page")["webSocketDebuggerUrl"])
        finally:
            chromium.terminate()
            chromium.wait()


def _port(file: Path) -> int:
    end = time.monotonic() + SECONDS
    while not file.is_file() or not file.read_text():
        if time.monotonic() > end:
            raise RuntimeError("Chromium did not come up")
        time.sleep(0.1)
    return int(file.read_text().split()[0])


if __name__ == "__main__":
    main()
