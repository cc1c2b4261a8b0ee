"""A loopback Hugging Face Hub: real HTTP, real files, and faults that a test can order.

It speaks what the unmodified `huggingface_hub` client (0.3x to 2.x) needs for reading models, and must not know
anything of catalogger. Wording of refusals: as huggingface.co sends it. Xet is left out, so clients use plain HTTP.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from catalogger.testing.loopback import Loopback, Quiet
from fakes.throttle import Throttle

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".onnx", ".gguf", ".h5", ".msgpack")
LFS_BYTES = 10_000_000
PAGE = 1000  # entries in one page of a tree listing, as the Hub caps it
_CHATTER = ("/api/agent-harnesses", "/api/telemetry/")  # what the client asks for itself, once in a process
BLOCK = 1 << 20

_REPO = r"(?P<repo>[^/]+(?:/[^/]+)?)"
_INFO = re.compile(rf"/api/models/{_REPO}(?:/revision/(?P<rev>[^/]+))?")
_TREE = re.compile(rf"/api/models/{_REPO}/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?")
_REFS = re.compile(rf"/api/models/{_REPO}/refs")
_FILE = re.compile(rf"/{_REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
_CDN = re.compile(r"/cdn/(?P<sha256>[0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Request:
    """One request as it was answered; `authorised` says that it carried a token, `sent` counts body bytes."""

    method: str
    path: str
    range: str | None
    authorised: bool
    status: int
    sent: int = 0


@dataclass(frozen=True)
class Entry:
    """One file of one commit; `source` is the content or the path it is served from, `sha256` is set for LFS."""

    path: str
    size: int
    blob_id: str
    sha256: str | None
    source: bytes | Path

    @property
    def etag(self) -> str:
        return self.sha256 or self.blob_id

    def open(self) -> io.BytesIO | io.BufferedReader:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


@dataclass
class Repo:
    """A repository: its access, its commits by id, and the branches and tags that point at them."""

    gated: bool = False
    private: bool = False
    token: str | None = None
    licence: str | None = None
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What goes back: a small `body`, or the bytes `start` to `stop` of a stored file."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    entry: Entry | None = None
    start: int = 0
    stop: int = 0

    @property
    def length(self) -> int:
        return self.stop - self.start if self.entry else len(self.body)


@dataclass
class _Fault:
    kind: Literal["fail", "cut", "corrupt"]
    pattern: str
    times: int
    method: str = "*"
    reply: Reply = Reply(503)
    after: int = 0


@dataclass(frozen=True)
class _Call:
    method: str
    path: str  # still percent-encoded, so that a branch name may hold a slash
    query: Mapping[str, list[str]]
    range: str | None
    token: str | None


class _RefusalError(Exception):
    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reply = _json(
            {"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        )


class Hub:
    """The server, started by `with`. With `redirect=True` LFS downloads go to /cdn/{sha256} on another port.

    Files are sent through `throttle`, where there is one; it may be exchanged at any time.
    """

    def __init__(self, *, redirect: bool = False) -> None:
        self.accepted: set[str] = set()  # tokens that may read every gated and private repo
        self.on_request: Callable[[Request], None] | None = None  # before it is answered, in its own thread
        self.throttle: Throttle | None = None
        self._repos: dict[str, Repo] = {}
        self._stored: dict[str, Entry] = {}  # LFS content by sha256, for the CDN
        self._faults: list[_Fault] = []
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        self._server = Loopback(partial(_Handler, self), goodbye=True)
        self._cdn = Loopback(partial(_Handler, self), goodbye=True) if redirect else None
        self.url = self._server.url

    def __enter__(self) -> Hub:
        for server in filter(None, (self._server, self._cdn)):
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in filter(None, (self._server, self._cdn)):
            server.stop()

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far, oldest first; a snapshot."""
        with self._lock:
            return tuple(self._requests)

    @property
    def sent(self) -> int:
        """Body bytes sent so far, of files and of small replies."""
        return sum(request.sent for request in self.requests)

    def add(
        self,
        name: str,
        files: Path | Mapping[str, bytes],
        *,
        gated: bool = False,
        private: bool = False,
        token: str | None = None,
        licence: str | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> str:
        """Commit `files` to branch main and return the commit id; files of a folder are served from where they are.

        Access and licence hold for the repository from now on. `token` opens this repository only. `digests` gives
        the sha256 of LFS files, so that sparse giants need not be read.
        """
        digests = digests or {}
        sources = _walk(files) if isinstance(files, Path) else files
        if unknown := digests.keys() - sources.keys():
            raise ValueError(f"digests for files that are not there: {sorted(unknown)}")
        entries = {path: _entry(path, sources[path], digests.get(path)) for path in sorted(sources)}
        commit = _sha1("\n".join(f"{e.path} {e.etag}" for e in entries.values()).encode())
        with self._lock:
            repo = self._repos.setdefault(name, Repo())
            repo.gated, repo.private, repo.token, repo.licence = gated, private, token, licence
            repo.commits[commit] = entries
            repo.refs["main"] = commit
            self._stored |= {entry.sha256: entry for entry in entries.values() if entry.sha256}
        return commit

    def move(self, name: str, ref: str, commit: str) -> None:
        """Point a branch or tag at a commit that the repository has."""
        repo = self._repos[name]
        if commit not in repo.commits:
            raise ValueError(f"{name} has no commit {commit}")
        repo.refs[ref] = commit

    tag = move  # the Hub resolves both in the same way

    def fail(
        self, pattern: str, *, status: int, times: int = 1, retry_after: int | None = None, method: str = "*"
    ) -> None:
        """Answer the next `times` requests whose path matches the glob with `status`."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        reply = _json({"error": f"ordered fault {status}"}, status, headers)
        self._order(_Fault("fail", pattern, times, method=method, reply=reply))

    def cut(self, pattern: str, *, after: int, times: int = 1) -> None:
        """Drop the connection after `after` bytes of a file body that is longer than that."""
        self._order(_Fault("cut", pattern, times, after=after))

    def corrupt(self, pattern: str, *, times: int = 1) -> None:
        """Send a file body of the right length with its middle byte wrong."""
        self._order(_Fault("corrupt", pattern, times))

    def _order(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _take(self, kind: str, method: str, path: str, length: int = 0) -> _Fault | None:
        """The next ordered fault that fits, used up by one; a body of `length` must outlast a cut."""
        with self._lock:
            for fault in self._faults:
                fits = fnmatchcase(path, fault.pattern) and fnmatchcase(method, fault.method)
                if fault.kind == kind and fault.times > 0 and fits and (kind == "fail" or length > fault.after):
                    fault.times -= 1
                    return fault
        return None

    def _record(self, request: Request) -> int:
        with self._lock:
            self._requests.append(request)
            return len(self._requests) - 1

    def _count(self, index: int, sent: int) -> None:
        with self._lock:
            self._requests[index] = replace(self._requests[index], sent=self._requests[index].sent + sent)

    def _answer(self, call: _Call) -> Reply:
        if fault := self._take("fail", call.method, unquote(call.path)):
            return fault.reply
        try:
            return self._route(call)
        except _RefusalError as refusal:
            return refusal.reply

    def _route(self, call: _Call) -> Reply:
        if call.path == "/api/whoami-v2":
            return self._whoami(call)
        for pattern, reply in (
            (_REFS, self._refs),
            (_TREE, self._tree),
            (_INFO, self._info),
            (_FILE, self._file),
        ):
            if found := pattern.fullmatch(call.path):
                parts = {key: unquote(value) for key, value in found.groupdict().items() if value}
                return reply(call, **parts)
        if (found := _CDN.fullmatch(call.path)) and (entry := self._stored.get(found["sha256"])):
            return _ranged(entry, call, {"ETag": f'"{entry.sha256}"'})
        return _json({"error": f"the fake Hub does not know {call.path}"}, 501)

    def _knows(self, token: str | None) -> bool:
        return token is not None and (token in self.accepted or any(r.token == token for r in self._repos.values()))

    def _opens(self, token: str | None, repo: Repo) -> bool:
        return token is not None and (token in self.accepted or token == repo.token)

    def _whoami(self, call: _Call) -> Reply:
        if not self._knows(call.token):
            message = "Invalid user token." if call.token else "Invalid username or password."
            return _json({"error": message}, 401, {"X-Error-Message": message})
        auth = {"type": "access_token", "accessToken": {"displayName": "tests", "role": "read"}}
        return _json({"type": "user", "name": "tester", "fullname": "Tester", "orgs": [], "auth": auth})

    def _find(self, call: _Call, name: str, rev: str) -> tuple[Repo, str]:
        """The repository and the commit id, if this caller may know of them."""
        repo = self._repos.get(name)
        if repo is None or (repo.private and not self._opens(call.token, repo)):
            # The Hub tells a stranger nothing: a missing repo and a private one look the same to him.
            if self._knows(call.token):
                raise _RefusalError(404, "RepoNotFound", "Repository not found")
            raise _RefusalError(401, "RepoNotFound", "Invalid username or password.")
        commit = repo.refs.get(rev, rev)
        if commit not in repo.commits:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {rev}")
        return repo, commit

    def _info(self, call: _Call, repo: str, rev: str = "main") -> Reply:
        found, commit = self._find(call, repo, rev)
        blobs = call.query.get("blobs", ["false"])[-1].lower() == "true"
        return _json(
            {
                "id": repo,
                "modelId": repo,
                "author": repo.partition("/")[0],
                "sha": commit,
                "lastModified": "2024-01-01T00:00:00.000Z",
                "private": found.private,
                "gated": "manual" if found.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [f"license:{found.licence}"] if found.licence else [],
                **({"cardData": {"license": found.licence}} if found.licence else {}),
                "siblings": [_sibling(entry, blobs) for entry in found.commits[commit].values()],
            }
        )

    def _refs(self, call: _Call, repo: str) -> Reply:
        found, _ = self._find(call, repo, "main")
        told = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": commit} for n, commit in found.refs.items()]
        return _json({"branches": told, "converts": [], "tags": []})

    def _tree(self, call: _Call, repo: str, rev: str, path: str = "") -> Reply:
        found, commit = self._find(call, repo, rev)
        recursive = call.query.get("recursive", ["false"])[-1].lower() == "true"
        listing = _listing(found.commits[commit], path, recursive)
        if path and not listing:
            raise _RefusalError(404, "EntryNotFound", f"{path} does not exist on {rev!r}", {"X-Repo-Commit": commit})
        start = int(call.query.get("cursor", ["0"])[-1])
        more = f"{self.url}{call.path}?recursive={recursive}&cursor={start + PAGE}"
        headers = {"Link": f'<{more}>; rel="next"'} if start + PAGE < len(listing) else {}
        return _json(listing[start : start + PAGE], headers=headers)

    def _file(self, call: _Call, repo: str, rev: str, path: str) -> Reply:
        found, commit = self._find(call, repo, rev)
        if found.gated and not self._opens(call.token, found):
            raise _gate(repo, known=call.token is not None)
        headers = {"X-Repo-Commit": commit}
        entry = found.commits[commit].get(path)
        if entry is None:
            raise _RefusalError(404, "EntryNotFound", "Entry not found", headers)
        headers["ETag"] = f'"{entry.etag}"'
        if entry.sha256:
            headers |= {"X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
            if self._cdn:
                return Reply(302, headers | {"Location": f"{self._cdn.url}/cdn/{entry.sha256}"})
        return _ranged(entry, call, headers)


class _Handler(Quiet, BaseHTTPRequestHandler):
    wbufsize = -1  # head and small body leave in one write

    def __init__(self, hub: Hub, *args: object) -> None:
        self.hub = hub
        super().__init__(*args)  # type: ignore[arg-type]  # socketserver's three positional arguments

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith(_CHATTER):
            self._answer_nothing()
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        call = _Call(self.command, url.path, parse_qs(url.query), self.headers.get("Range"), token)
        reply = self.hub._answer(call)
        path = unquote(url.path)
        # Recorded before it is sent: a client that has its reply finds its request in the log.
        request = Request(call.method, path, call.range, token is not None, reply.status)
        index = self.hub._record(request)
        if self.hub.on_request:
            self.hub.on_request(request)
        self.send_response(reply.status)
        for key, value in {**reply.headers, "Content-Length": str(reply.length)}.items():
            self.send_header(key, value)
        if self.command == "GET" and reply.entry is None:
            self.hub._count(index, len(reply.body))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(reply.body)
            self.wfile.flush()
            if reply.entry:
                self._send_file(reply, reply.entry, path, index)

    def _answer_nothing(self) -> None:
        """Whoever counts requests would else count one more in whichever test comes first in its process."""
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send_file(self, reply: Reply, entry: Entry, path: str, index: int) -> None:
        start, stop = reply.start, reply.stop
        cut = self.hub._take("cut", "GET", path, reply.length)
        if cut:
            stop = start + cut.after
            self.close_connection = True
        corrupt = self.hub._take("corrupt", "GET", path, stop - start)
        with entry.open() as file:
            if corrupt:
                middle = (start + stop) // 2
                self._send_bytes(file, start, middle, index)
                file.seek(middle)
                self.hub._count(index, 1)
                self.connection.sendall(bytes([file.read(1)[0] ^ 0xFF]))
                start = middle + 1
            self._send_bytes(file, start, stop, index)

    def _send_bytes(self, file: BinaryIO, start: int, stop: int, index: int) -> None:
        for offset in range(start, stop, BLOCK):
            count = min(BLOCK, stop - offset)
            if self.hub.throttle:
                self.hub.throttle.take(count)
            self.hub._count(index, count)
            if self.connection.sendfile(file, offset, count) < count:
                raise ConnectionError("the served file has become shorter")


def _walk(folder: Path) -> dict[str, bytes | Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _entry(path: str, source: bytes | Path, sha256: str | None) -> Entry:
    """The facts of a file as git and git-lfs would have them."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    entry = Entry(path, size, "", None, source)
    if path.endswith(LFS_SUFFIXES) or size > LFS_BYTES:
        with entry.open() as file:
            sha256 = sha256 or hashlib.file_digest(file, "sha256").hexdigest()
        return replace(entry, sha256=sha256, blob_id=_blob_id(_pointer(sha256, size)))
    with entry.open() as file:
        return replace(entry, blob_id=_blob_id(file.read()))


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _blob_id(content: bytes) -> str:
    return _sha1(b"blob %d\0" % len(content) + content)


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _lfs(entry: Entry, name: Literal["sha256", "oid"]) -> dict[str, object]:
    """The `lfs` field, which names the digest `sha256` in model_info and `oid` in the tree."""
    if entry.sha256 is None:
        return {}
    pointer = len(_pointer(entry.sha256, entry.size))
    return {"lfs": {name: entry.sha256, "size": entry.size, "pointerSize": pointer}}


def _sibling(entry: Entry, blobs: bool) -> dict[str, object]:
    facts = {"size": entry.size, "blobId": entry.blob_id, **_lfs(entry, "sha256")} if blobs else {}
    return {"rfilename": entry.path, **facts}


def _listing(entries: Mapping[str, Entry], folder: str, recursive: bool) -> list[dict[str, object]]:
    """Files and folders below `folder`, or only those directly in it."""
    prefix = f"{folder}/" if folder else ""
    found: dict[str, dict[str, object]] = {}
    for path, entry in entries.items():
        if not path.startswith(prefix):
            continue
        for parent in list(Path(path).parents)[-2::-1]:
            name = parent.as_posix()
            if name.startswith(prefix):
                found[name] = {"type": "directory", "path": name, "size": 0, "oid": _blob_id(name.encode())}
        facts = {"path": path, "size": entry.size, "oid": entry.blob_id}
        found[path] = {"type": "file", **facts, **_lfs(entry, "oid")}
    return [facts for path, facts in found.items() if recursive or "/" not in path.removeprefix(prefix)]


def _gate(repo: str, *, known: bool) -> _RefusalError:
    about = f"Access to model {repo} is restricted"
    if known:
        rest = f" and you are not in the authorized list. Visit https://huggingface.co/{repo} to ask for access."
        return _RefusalError(403, "GatedRepo", about + rest)
    rest = ". You must have access to it and be authenticated to access it. Please log in."
    return _RefusalError(401, "GatedRepo", about + rest)


def _json(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    content_type = {"Content-Type": "application/json; charset=utf-8"}
    return Reply(status, content_type | dict(headers or {}), json.dumps(data).encode())


def _ranged(entry: Entry, call: _Call, headers: Mapping[str, str]) -> Reply:
    """The file, or the one range asked for; several ranges or nonsense are answered whole, as RFC 9110 allows."""
    headers = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    found = _RANGE.fullmatch(call.range or "")
    if call.method != "GET" or found is None or found.groups() == ("", ""):
        return Reply(200, headers, entry=entry, stop=entry.size)
    first, last = found.groups()
    start = int(first) if first else max(entry.size - int(last), 0)
    stop = min(int(last) + 1, entry.size) if first and last else entry.size
    if start >= entry.size or stop <= start:
        return Reply(416, {**headers, "Content-Range": f"bytes */{entry.size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{entry.size}"
    return Reply(206, headers, entry=entry, start=start, stop=stop)
