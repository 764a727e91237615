"""A Hub with one repository, served on this machine by HTTP: as much of its interface as downloading needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(folder: Path, repo_id: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as a repository; yields the address for HF_ENDPOINT, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{repo_id}/tree/"):
                self._reply(json.dumps(list(map(_entry, _files(folder)))).encode(), "application/json")
            elif path.startswith(f"/api/models/{repo_id}"):
                siblings = [{"rfilename": name} for name, _ in _files(folder)]
                about = {"id": repo_id, "modelId": repo_id, "sha": COMMIT, "siblings": siblings, "tags": []}
                self._reply(json.dumps(about | {"downloads": 0, "private": False}).encode(), "application/json")
            elif path.startswith(f"/{repo_id}/resolve/"):
                name = path.removeprefix(f"/{repo_id}/resolve/").partition("/")[2]
                found = dict(_files(folder)).get(name)
                self._reply(found, "application/octet-stream") if found is not None else self.send_error(404)
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def _reply(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            headers = {"Content-Type": kind, "Content-Length": len(content), "X-Repo-Commit": COMMIT}
            for name, value in (headers | {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}).items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _files(folder: Path) -> list[tuple[str, bytes]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in found]


def _entry(file: tuple[str, bytes]) -> dict[str, Any]:
    name, content = file
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
