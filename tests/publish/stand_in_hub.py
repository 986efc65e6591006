"""The part of the hub's API that an upload and a download need, on loopback, for huggingface_hub.

Endpoints and bodies are those of huggingface_hub 2.4.0: `_commit_api.py`, `lfs.py`, `hf_api.py`.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "a" * 40  # of `main`, whatever is in it
TOKEN = "hf_" + "a1B2" * 9


@dataclass
class StandInHub:
    """What the server holds: files by branch, and large ones by their sha256."""

    address: str = ""
    visibility: str | None = None
    branches: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    validated: list[str] = field(default_factory=list)  # cards
    tokens: set[str | None] = field(default_factory=set)
    status: int = 200  # of everything, where it is another
    loses: str = ""  # a file that does not arrive

    def commit(self, branch: str, lines: list[dict]) -> None:
        files = self.branches[branch]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise AssertionError(line["key"])
        files.pop(self.loses, None)

    def tree(self, branch: str) -> list[dict]:
        found = []
        for path, content in self.branches[branch].items():
            blob = b"blob %d\0" % len(content) + content
            entry = {"type": "file", "path": path, "size": len(content)}
            entry["oid"] = hashlib.sha1(blob).hexdigest()
            if path.endswith(".safetensors"):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            found.append(entry)
        return found


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """A server on loopback with a repository `me/tiny` that is yet to be made."""
    hub = StandInHub()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = unquote(self.path.partition("?")[0])
            if path == "/api/validate-yaml":  # of a card, asked without a token
                hub.validated.append(json.loads(content)["content"])
                self._send({"errors": [], "warnings": []})
                return
            if not self._is_allowed():
                return
            if path == "/api/repos/create":
                self._create(json.loads(content))
            elif path.startswith("/api/models/me/tiny/branch/"):
                known = path.rpartition("/")[2] in hub.branches
                hub.branches.setdefault(path.rpartition("/")[2], dict(hub.branches["main"]))
                self._send({}, 409 if known else 200)
            elif path.startswith("/api/models/me/tiny/preupload/"):
                names = [one["path"] for one in json.loads(content)["files"]]
                modes = {True: "lfs", False: "regular"}
                said = [
                    {
                        "path": name,
                        "uploadMode": modes[name.endswith(".safetensors")],
                        "shouldIgnore": False,
                    }
                    for name in names
                ]
                self._send({"files": said})
            elif path == "/me/tiny.git/info/lfs/objects/batch":
                self._send({"objects": [self._slot(one) for one in json.loads(content)["objects"]]})
            elif path.startswith("/api/models/me/tiny/commit/"):
                branch = path.rpartition("/")[2]
                hub.commit(branch, [json.loads(line) for line in content.splitlines()])
                oid = hashlib.sha1(content).hexdigest()
                self._send({"commitUrl": f"{hub.address}/me/tiny/commit/{oid}", "commitOid": oid})
            else:
                self._send({"error": path}, 404)

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            hub.large[hashlib.sha256(content).hexdigest()] = content
            self._send({})

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            if not self._is_allowed():
                return
            if path.startswith("/api/models/me/tiny/tree/"):
                branch = path.rpartition("/")[2]
                self._send(hub.tree("main" if branch == COMMIT else branch))
            elif path.startswith("/me/tiny/resolve/"):
                self._file(hub.branches["main"].get(path.split("/", 5)[5]))
            elif path.startswith("/api/models/me/tiny"):
                files = [{"rfilename": name} for name in hub.branches["main"]]
                self._send({"id": "me/tiny", "sha": COMMIT, "siblings": files})
            else:
                self._send({"error": path}, 404)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _file(self, content: bytes | None) -> None:
            if content is None:
                self._send({"error": "no such file"}, 404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def _is_allowed(self) -> bool:
            hub.tokens.add(self.headers.get("Authorization"))
            if hub.status != 200:
                self._send({"error": "no"}, hub.status)
            return hub.status == 200

        def _create(self, said: dict) -> None:
            known = bool(hub.branches)
            if not known:
                hub.branches["main"] = {".gitattributes": b"*.safetensors filter=lfs\n"}
                hub.visibility = said.get("visibility")
            name = f"{said['organization']}/{said['name']}"
            self._send({"url": f"{hub.address}/{name}"}, 409 if known else 200)

        def _slot(self, one: dict) -> dict:
            href = f"{hub.address}/large/{one['oid']}"
            return one | {"actions": {"upload": {"href": href, "header": {}}}}

        def _send(self, content: object, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
