"""A stand-in for an MLflow server that is overloaded, silent, broken or forbids everything.

It understands what is needed to log: experiments, runs, `log-batch`, ends. What it was given stands
in `points`; a point that came twice is there twice.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl


class PoorServer:
    """What the server was given, and how it is to answer."""

    def __init__(self) -> None:
        self.points: Counter[tuple[str, int]] = Counter()
        self.runs: dict[str, dict[str, Any]] = {}
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()
        #: Called before an answer: a status with which to refuse, or None.
        self.trouble: Callable[[str, dict[str, Any]], int | None] = lambda path, body: None
        self.uri = ""
        self.ahead = 0.0  # seconds of its clock

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What MLflow would say; `path` is what follows `/api/2.0/mlflow/`."""
        if path == "runs/create":
            run = {"run_id": f"{len(self.runs):032x}", "tags": body.get("tags", [])}
            self.runs[run["run_id"]] = run
            return {"run": _run(run)}
        if path == "runs/get":
            return {"run": _run(self.runs[body["run_id"]])}
        if path == "runs/log-batch":
            for metric in body.get("metrics", []):
                self.points[(metric["key"], int(metric.get("step", 0)))] += 1
        if path == "runs/update":
            self.runs[body["run_id"]]["status"] = body["status"]
            return {"run_info": {"run_id": body["run_id"]}}
        if path.startswith("experiments/"):
            return {"experiment": {"experiment_id": "1", "name": "test"}, "experiments": []}
        return {}


def _run(run: dict[str, Any]) -> dict[str, Any]:
    info = {"run_id": run["run_id"], "run_uuid": run["run_id"], "experiment_id": "1"}
    info |= {"status": run.get("status", "RUNNING"), "start_time": 1}
    return {"info": info, "data": {"tags": run["tags"]}}


@contextmanager
def poor_server() -> Iterator[PoorServer]:
    """One on loopback as long as the context lasts."""
    state, ended = PoorServer(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            address, _, asked = self.path.partition("?")
            path = address.partition("/mlflow/")[2]
            text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(text or b"{}") | dict(parse_qsl(asked))
            state.requests[path] += 1
            status = state.trouble(path, body)
            with state.lock:
                content = {} if status else state.answer(path, body)
            if status == 0:  # it never answers
                ended.wait(60)
                return
            self.send_response(status or 200)
            if status == 429:
                self.send_header("Retry-After", "3600")
            text = json.dumps(content).encode()
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() + state.ahead)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.uri = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        ended.set()
        server.shutdown()
        server.server_close()  # or who connects waits for an answer
        thread.join()
