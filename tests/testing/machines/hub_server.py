"""A hub on this machine: the few requests by which huggingface_hub sends and fetches a model, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HubServer(ThreadingHTTPServer):
    """`models`: the files of each model by name. `private`: those that were made so."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.models: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, name: str) -> str:
        """40 digits that change with the files."""
        digest = hashlib.sha1()
        for path, data in sorted(self.models[name].items()):
            digest.update(path.encode() + data)
        return digest.hexdigest()


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Such a hub while the block runs."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Request(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        self.server.asked.append(f"{self.command} {self.path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.server.models.setdefault(name, {})
            if asked.get("private") or asked.get("visibility") == "private":
                self.server.private.add(name)
            return self._json({"url": f"{self.server.address}/{name}", "name": name})
        if path == "/api/validate-yaml":  # of the model card
            return self._json({"errors": [], "warnings": []})
        owner, short, what = path.removeprefix("/api/models/").split("/")[:3]
        name = f"{owner}/{short}"
        if what == "preupload":
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        assert what == "commit", path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.models[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        found = self.server.commit(name)
        return self._json({"commitUrl": f"{self.server.address}/{name}/commit/{found}", "commitOid": found})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        files = self.server.models.get(name)
        if files is None:
            return self._json({"error": "Repository not found"}, 401, {"X-Error-Code": "RepoNotFound"})
        commit = self.server.commit(name)
        if api and "tree" in parts:
            tree = [{"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in sorted(files.items())]  # fmt: skip
            return self._json(tree, 200, {"X-Repo-Commit": commit})
        if api:
            listed = [{"rfilename": path} for path in sorted(files)]
            return self._json({"id": name, "sha": commit, "private": name in self.server.private, "siblings": listed})
        data = files["/".join(parts[4:])]
        etag = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        return self._send(data, 200, etag)

    def _json(self, value: object, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), code, (headers or {}) | {"Content-Type": "application/json"})

    def _send(self, data: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
