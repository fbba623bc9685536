"""A stand-in for the Hugging Face hub on this machine: repositories of models with commits."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_writes"
LARGE = (".h5", ".safetensors")  # stored by LFS


@dataclass
class Repository:
    """A repository of a model.

    Attributes:
        private: whether only requests with the token see it.
        commits: files of each commit by path.
        branches: commit of each branch.
        messages: message of each commit by `commit`, oldest first.
    """

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: Mapping[str, bytes], branch: str = "main", message: str = "") -> str:
        """Makes a branch point to a new commit with these files, and returns the commit."""
        digest = hashlib.sha1(f"{len(self.commits)}".encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + content)
        commit = digest.hexdigest()
        self.commits[commit], self.branches[branch] = dict(files), commit
        self.messages.append(message)
        return commit

    def find(self, revision: str) -> str | None:
        """Returns the commit of a branch or commit; None if there is no such revision."""
        return self.branches.get(revision, revision if revision in self.commits else None)


class Hub:
    """The repositories of the stand-in, its address and its requests.

    Attributes:
        repositories: by name, such as "user/name".
        requests: method and path of each request.
        agents: user agents of the requests.
        failing: whether all requests are answered with 503.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # of LFS
        self.requests: list[str] = []
        self.agents: list[str] = []
        self.failing = False
        self.address = ""

    def add(self, name: str, folder: Path | None = None, **files: bytes) -> Repository:
        """Adds a repository with the files of a folder."""
        contents = {path.name: path.read_bytes() for path in folder.iterdir()} if folder else {}
        repository = self.repositories[name] = Repository()
        repository.commit({".gitattributes": b"", **contents, **files})
        return repository

    def downloads(self) -> list[str]:
        """Returns the names of the files whose contents were requested."""
        paths = [request.split(" ")[1] for request in self.requests if request.startswith("GET /")]
        return sorted({path.rpartition("/")[2] for path in paths if "/resolve/" in path})


class Handler(BaseHTTPRequestHandler):
    """Answers the requests that `huggingface_hub` makes."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        """Prints nothing."""

    def do_GET(self) -> None:  # noqa: N802
        self.respond(b"")

    def do_HEAD(self) -> None:  # noqa: N802
        self.respond(b"")

    def do_POST(self) -> None:  # noqa: N802
        self.respond(self.read_body())

    def do_PUT(self) -> None:  # noqa: N802
        self.respond(self.read_body())

    def read_body(self) -> bytes:
        """Returns the body of a request with a length or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    @property
    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def respond(self, body: bytes) -> None:
        """Answers one request."""
        path = unquote(urlsplit(self.path).path)
        if path == "/api/agent-harnesses":  # once a day, names that the library knows
            self.send(200, {})
            return
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.agents.append(self.headers.get("User-Agent", ""))
        words = path.strip("/").split("/")
        if self.hub.failing:
            self.send(503, {"error": "down"})
        elif words[:1] == ["lfs"] or path.endswith("/info/lfs/objects/batch"):
            self.store(words, body)
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.send(200, {"errors": [], "warnings": []})
        elif words[:2] == ["api", "models"] and len(words) >= 4:
            self.in_repository("/".join(words[2:4]), words[4:], body)
        elif len(words) >= 5 and words[2] == "resolve":
            self.in_repository("/".join(words[:2]), words[2:], body)
        else:
            self.fail(404, "EntryNotFound")

    def in_repository(self, name: str, words: list[str], body: bytes) -> None:
        """Answers a request about a repository."""
        repository = self.hub.repositories.get(name)
        if repository is None or repository.private and not self.has_token:
            self.fail(404 if self.has_token else 401, "RepoNotFound")
            return
        action = words[0] if words else "revision"
        if action == "branch":
            repository.branches.setdefault(words[1], repository.branches["main"])
            self.send(200, {})
            return
        revision = "/".join(words[1:]) or "main"
        if action == "resolve":
            revision, *file = words[1:]
        commit = repository.find(revision)
        if commit is None:
            self.fail(404, "RevisionNotFound")
        elif action in ("preupload", "commit") and not self.has_token:
            self.fail(401, None)
        elif action == "resolve":
            self.send_file(repository.commits[commit], commit, "/".join(file))
        elif action == "preupload":
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": x["path"],
                    "uploadMode": "lfs" if x["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for x in files
            ]
            self.send(200, {"files": modes})
        elif action == "commit":
            self.commit(name, repository, revision, body)
        elif action == "tree":
            self.send(200, [entry(*item) for item in repository.commits[commit].items()])
        else:
            files = [{"rfilename": path} for path in repository.commits[commit]]
            info = {"id": name, "sha": commit, "siblings": files, "private": repository.private}
            self.send(200, info)

    def create(self, options: dict) -> None:
        """Creates a repository."""
        name = f"{options.get('organization') or 'user'}/{options['name']}"
        if not self.has_token:
            self.fail(401, None)
            return
        exists = name in self.hub.repositories
        if not exists:
            hidden = options.get("private") or options.get("visibility") == "private"
            self.hub.add(name).private = bool(hidden)
        self.send(409 if exists else 200, {"url": f"{self.hub.address}/{name}", "error": "exists"})

    def store(self, words: list[str], body: bytes) -> None:
        """Receives the contents of large files."""
        if words[0] == "lfs":
            self.hub.objects[words[1]] = body
            self.send(200, {})
            return
        objects = [
            {**x, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{x['oid']}"}}}
            for x in json.loads(body)["objects"]
        ]
        self.send(200, {"transfer": "basic", "objects": objects})

    def commit(self, name: str, repository: Repository, branch: str, body: bytes) -> None:
        """Adds a commit to a branch."""
        lines = [json.loads(line) for line in body.splitlines()]
        files, message = dict(repository.commits[repository.branches[branch]]), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
                parent = value.get("parentCommit")
                if parent not in (None, repository.branches[branch]):
                    self.send(412, {"error": "the branch has moved"})
                    return
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(files, branch, message)
        address = f"{self.hub.address}/{name}/commit/{commit}"
        self.send(200, {"commitUrl": address, "commitOid": commit, "success": True})

    def send_file(self, files: Mapping[str, bytes], commit: str, path: str) -> None:
        """Sends a file."""
        if path not in files:
            self.fail(404, "EntryNotFound")
            return
        content = files[path]
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def fail(self, status: int, code: str | None) -> None:
        """Sends an error with the code that `huggingface_hub` looks at."""
        self.send(status, {"error": code or "Invalid username or password."}, code)

    def send(self, status: int, value: object, code: str | None = None) -> None:
        """Sends a value as JSON."""
        content = json.dumps(value).encode()
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def entry(path: str, content: bytes) -> dict:
    """Returns what the hub lists of a file."""
    listed = {"type": "file", "path": path, "size": len(content)}
    return {**listed, "oid": hashlib.sha1(content).hexdigest()}


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serves an empty hub on a free port."""
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    """Makes `huggingface_hub`, in this process and its children, use a hub and an empty cache."""
    from huggingface_hub import constants

    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"}
    for name, value in {**settings, "HF_HOME": str(cache / "home")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
