"""A hub on loopback: what huggingface_hub asks of one, with faults on demand, serving folders that tests make."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".h5", ".keras", ".npz", ".pth", ".onnx", ".tflite", ".pb")  # what is kept apart
TOKEN = "hf_loopback"


@dataclass
class Repository:
    """One model.

    Args:
        files: content by name.
        access: "public", "gated" (a token has to be granted access) or "private".
        granted: tokens that may read it.
        revisions: names of its one commit beside `main`.
    """

    files: dict[str, bytes]
    access: str = "public"
    granted: set[str] = field(default_factory=set)
    revisions: set[str] = field(default_factory=set)

    @property
    def commit(self) -> str:
        parts = (name.encode() + b"\0" + content for name, content in sorted(self.files.items()))
        return hashlib.sha1(b"\0".join(parts)).hexdigest()


@dataclass
class Fault:
    """What happens to requests in place of an answer.

    Args:
        path: found in the paths of those that it happens to.
        times: how often; every time by default.
        method: of those.
        status: that is answered, with `headers` and `body`.
        cut: bytes of the answer after which the connection is closed.
        corrupt: whether a byte of the answer is another.
    """

    path: str
    times: int = 1_000_000
    method: str = "GET"
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    corrupt: bool = False


@dataclass(frozen=True)
class Request:
    """One that has come: to the hub, or to the other host that has large files."""

    host: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Hub:
    """Repositories, and what was asked of them."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    writers: set[str] = field(default_factory=lambda: {TOKEN})
    endpoint: str = ""
    storage: str = ""
    xet: bool = False  # whether it announces a storage beside plain HTTP, which it has not

    def empty(self) -> None:
        """Be as if nobody had asked anything of it."""
        fresh = Hub(endpoint=self.endpoint, storage=self.storage)
        vars(self).update(vars(fresh))

    def add(self, name: str, files: Path | Mapping[str, bytes], **others: Any) -> Repository:
        """A repository with the files of a folder."""
        if isinstance(files, Path):
            found = (path for path in sorted(files.rglob("*")) if path.is_file())
            files = {each.relative_to(files).as_posix(): each.read_bytes() for each in found}
        self.repositories[name] = Repository(dict(files), **others)
        return self.repositories[name]

    def asked(self, path: str, method: str = "GET") -> list[Request]:
        """Requests whose paths have it."""
        return [request for request in self.requests if path in request.path and request.method == method]

    def content(self, digest: str) -> bytes:
        """A large file by its SHA-256."""
        held = (content for repository in self.repositories.values() for content in repository.files.values())
        return next(content for content in held if hashlib.sha256(content).hexdigest() == digest)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on two ports of loopback, one for the hub and one for the host that its large files lie on."""
    hub = Hub()
    with _server(hub, "hub") as main, _server(hub, "storage") as other:
        hub.endpoint, hub.storage = f"http://127.0.0.1:{main}", f"http://localhost:{other}"
        yield hub


@contextmanager
def _server(hub: Hub, host: str) -> Iterator[int]:
    class Bound(Handler):
        pass

    Bound.hub, Bound.host = hub, host
    with ThreadingHTTPServer(("127.0.0.1", 0), Bound) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class Refused(Exception):
    """An answer that ends a request."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    host: str

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        self.place, self.raw = unquote(address.path), address.path
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.requests.append(Request(self.host, self.command, self.place, headers, self.body))
        self.fault = next(
            (
                fault
                for fault in self.hub.faults
                if fault.times > 0 and fault.path in self.place and fault.method == self.command
            ),
            None,
        )
        if self.fault is not None:
            self.fault.times -= 1
            if self.fault.status:
                return self._send(self.fault.status, self.fault.body, self.fault.headers)
        try:
            self._route()
        except Refused as refused:
            said = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            body = json.dumps({"error": refused.message or refused.code}).encode()
            self._send(refused.status, body, {name: value for name, value in said.items() if value})
        return None

    def _route(self) -> None:
        routes = {
            r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?$": self._info,
            r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$": self._file,
            r"/storage/(\w+)$": self._stored,
            r"/api/repos/create$": self._create,
            r"/api/models/([^/]+/[^/]+)/preupload/(.+)$": self._preupload,
            r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch$": self._batch,
            r"/upload/(\w+)$": self._upload,
            r"/api/models/([^/]+/[^/]+)/commit/(.+)$": self._commit,
            r"/api/validate-yaml$": self._validate,
        }
        methods = {"_info": "GET", "_file": "GET HEAD", "_stored": "GET HEAD", "_upload": "PUT"}
        for pattern, route in routes.items():
            match = re.match(pattern, self.raw)  # in which a revision's slashes are no separators
            if match and self.command in methods.get(route.__name__, "POST").split():
                return route(*(None if group is None else unquote(group) for group in match.groups()))
        raise Refused(404)

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _repository(self, name: str, revision: str | None, *, content: bool) -> Repository:
        found = self.hub.repositories.get(name)
        if self.token and self.token != TOKEN and not self.token.startswith("hf_other"):
            raise Refused(401, message="Invalid credentials in Authorization header")
        if found is None or (found.access == "private" and self.token not in found.granted):
            raise Refused(404 if self.token else 401, "RepoNotFound", "Repository not found")
        if content and found.access == "gated" and self.token not in found.granted:
            raise Refused(403 if self.token else 401, "GatedRepo", f"Access to model {name} is restricted.")
        if revision not in (None, "main", found.commit, *found.revisions):
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def _info(self, name: str, revision: str | None) -> None:
        found = self._repository(name, revision, content=False)
        siblings = [
            {"rfilename": file, "size": len(content), "blobId": git_digest(content), **lfs(file, content)}
            for file, content in found.files.items()
        ]
        gated = "manual" if found.access == "gated" else False
        answer = {"id": name, "modelId": name, "sha": found.commit, "private": False, "gated": gated}
        self._json(answer | {"tags": [], "downloads": 0, "likes": 0, "siblings": siblings})

    def _file(self, name: str, revision: str, file: str) -> None:
        found = self._repository(name, revision, content=True)
        commit = {"X-Repo-Commit": found.commit}
        if file not in found.files:
            return self._send(404, b"Entry not found", {**commit, "X-Error-Code": "EntryNotFound"})
        content = found.files[file]
        if not lfs(file, content):
            return self._content(content, {**commit, "ETag": f'"{git_digest(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        if self.hub.xet:
            refresh = f"{self.hub.endpoint}/api/models/{name}/xet-read-token/{found.commit}"
            linked |= {"X-Xet-Hash": digest, "X-Xet-Refresh-Route": refresh}
        return self._send(302, b"", {**commit, **linked, "Location": f"{self.hub.storage}/storage/{digest}"})

    def _stored(self, digest: str) -> None:
        self._content(self.hub.content(digest), {"ETag": f'"{digest}"'})

    def _content(self, content: bytes, headers: Mapping[str, str]) -> None:
        if self.fault is not None and self.fault.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        more = {"Accept-Ranges": "bytes"}
        if wanted:
            more["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if wanted else 200, content[start:], {**headers, **more})

    def _json(self, answer: object) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = None if self.fault is None else self.fault.cut
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True

    def _writer(self) -> None:
        if self.token not in self.hub.writers:
            raise Refused(403 if self.token else 401, message="You don't have the rights to write here")

    def _create(self) -> None:
        self._writer()
        wanted = json.loads(self.body)
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
        if name in self.hub.repositories:
            raise Refused(409, message="You already created this model repo")
        private = wanted.get("private") or wanted.get("visibility") == "private"  # as older and newer clients say it
        access = "private" if private else "public"
        self.hub.add(name, {}, access=access, granted={self.token})
        self._json({"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})

    def _preupload(self, name: str, revision: str) -> None:
        self._writer()
        files = json.loads(self.body)["files"]
        modes = [{"path": file["path"], "uploadMode": "lfs" if large(file["path"]) else "regular"} for file in files]
        self._json({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})

    def _batch(self, name: str) -> None:
        self._writer()
        objects = json.loads(self.body)["objects"]
        answers = [
            {**each, "actions": {"upload": {"href": f"{self.hub.storage}/upload/{each['oid']}", "header": {}}}}
            for each in objects
        ]
        self._json({"transfer": "basic", "objects": answers})

    def _upload(self, digest: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != digest:
            raise Refused(400, message="another content")
        self.hub.uploaded[digest] = self.body
        self._send(200, b"", {})

    def _commit(self, name: str, revision: str) -> None:
        self._writer()
        repository = self.hub.repositories[name]
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.uploaded[value["oid"]]
        address = f"{self.hub.endpoint}/{name}/commit/{repository.commit}"
        self._json({"success": True, "commitOid": repository.commit, "commitUrl": address, "pullRequestUrl": None})

    def _validate(self) -> None:
        self._json({"errors": [], "warnings": []})


def large(name: str) -> bool:
    return name.endswith(LARGE)


def lfs(name: str, content: bytes) -> dict[str, Any]:
    """What a listing says of a file that is kept apart; nothing of others."""
    if not large(name):
        return {}
    return {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
