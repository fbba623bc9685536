"""A stand-in for the endpoints of the Hugging Face hub that reading a data set calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", "refs/convert/parquet", COMMIT)


class HubDatasets:
    """Data sets that are served.

    Attributes:
        files: contents by name of the file, by USER/NAME.
        gated: names of data sets that need the consent of their owner.
        requests: method and path of every request so far.
    """

    def __init__(self, files: dict[str, dict[str, bytes]], gated: tuple[str, ...] = ()):
        self.files, self.gated = files, gated
        self.requests: list[str] = []

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serves on a free port and yields the URL."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def find(self, repo: str, revision: str) -> tuple[int, str]:
        """Returns the status, and the error code of the hub, of a data set at a revision."""
        if repo not in self.files:
            return 401, "RepoNotFound"
        if repo in self.gated:
            return 403, "GatedRepo"
        return (200, "") if revision in REVISIONS else (404, "RevisionNotFound")


def _handler(hub: HubDatasets) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            return

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

        def _answer(self, body: str = "") -> None:
            hub.requests.append(f"{self.command} {self.path}")
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            if parts[:2] == ["api", "datasets"]:
                self._answer_api("/".join(parts[2:4]), parts[4:], body)
            elif parts[:1] == ["datasets"] and parts[3:4] == ["resolve"]:
                self._answer_file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
            else:
                self._send(404, b"")

        def _answer_api(self, repo: str, parts: list[str], body: str) -> None:
            kind, revision = (*parts[:2], "main")[:2] if parts else ("revision", "main")
            status, code = hub.find(repo, revision)
            if code:
                self._send(status, b"{}", {"X-Error-Code": code})
                return
            files = hub.files[repo]
            if kind == "revision":
                content = {"id": repo, "sha": COMMIT, "private": False, "tags": [], "downloads": 0,
                           "siblings": [{"rfilename": name} for name in files]}  # fmt: skip
                self._send_json(content)
                return
            folder = "/".join(parts[2:])
            entries = [_entry(name, data) for name, data in files.items()]
            folders = {name.rpartition("/")[0] for name in files} - {""}
            entries += [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders]
            if kind == "tree":
                prefix = f"{folder}/" if folder else ""
                self._send_json([x for x in entries if x["path"].startswith(prefix)])
            else:  # paths-info
                form = parse_qs(body)
                wanted = json.loads(body)["paths"] if body.startswith("{") else form["paths"]
                self._send_json([x for x in entries if x["path"] in wanted])

        def _answer_file(self, repo: str, revision: str, name: str) -> None:
            status, code = hub.find(repo, revision)
            if not code and name not in hub.files[repo]:
                status, code = 404, "EntryNotFound"
            if code:
                self._send(status, b"", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})
                return
            data = hub.files[repo][name]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
            self._send(200, data, headers)

        def _send_json(self, content: object) -> None:
            self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    return Handler


def _entry(name: str, data: bytes) -> dict[str, object]:
    """Returns a file of a listing."""
    digest = hashlib.sha1(data).hexdigest()
    return {"type": "file", "path": name, "size": len(data), "oid": digest}
