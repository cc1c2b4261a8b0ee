"""The Files API of a loopback workspace: files and folders on disk, uploads in parts to presigned URLs.

It is the part of a server that knows what to answer; whoever serves it reads the requests and checks the tokens. It
speaks what `databricks-sdk` (0.54 to 0.162) and MLflow ask, and must not know anything of the rest of catalogger.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from catalogger.testing.files_reading import content, listing
from catalogger.testing.files_replies import Body, Call, Reply, empty_reply, xml_reply
from catalogger.testing.refusal import RefusalError, document
from catalogger.testing.resumable import Resumable

PRESIGNED = "/presigned/"
"""Paths that carry their own permission: they come without a token, and are refused with one, as S3 does."""

_FILES, _FOLDERS, _FS = "/api/2.0/fs/files/", "/api/2.0/fs/directories/", "/api/2.0/fs/"
_BLOCK = 1 << 18
_PARTS = 10_000  # of one upload, as S3 has it
_CHUNK = 0  # stands for a part's number where there is none
_LIFETIME = 900  # seconds, where nobody asks for another
_REQUIRED = {"x-amz-server-side-encryption": "AES256"}  # signed with the URL, so it must be sent


@dataclass
class _Upload:
    """An upload in parts that is under way: where it will be, its folder of parts, the ETag of each part."""

    path: str
    folder: Path
    etags: dict[int, str] = field(default_factory=dict)


@dataclass
class _Fault:
    part: int
    times: int
    reply: Reply | None = None  # None: keep half of the part and say nothing


class FilesApi:
    """Finished files are below `root` by their own paths (root/Models/…), unfinished ones below root/.unfinished.

    `presign_base` gives the address (http://host:port) that presigned URLs begin with. `resumable` says that uploads
    are begun in Google's way.
    """

    def __init__(self, root: Path, presign_base: Callable[[], str]) -> None:
        self.root = root
        self.resumable = False
        self._base = presign_base
        self._unfinished = root / ".unfinished"
        self._unfinished.mkdir(parents=True, exist_ok=True)
        self._uploads: dict[str, _Upload] = {}
        self._sessions: dict[str, Resumable] = {}
        self._faults: list[_Fault] = []
        self._key = secrets.token_bytes(32)
        self._issued = self._expired = 0  # URLs given out so far, and how many of them were ordered to expire
        self._lock = threading.Lock()

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The paths of the uploads that were begun, and neither completed nor aborted."""
        with self._lock:
            begun = [upload.path for upload in self._uploads.values()]
            return (*begun, *(session.path for session in self._sessions.values() if not session.finished))

    def expire_urls(self) -> None:
        """Every presigned URL that was given out until now is refused."""
        with self._lock:
            self._expired = self._issued

    def expire_part(self, part: int, *, times: int = 1) -> None:
        """The next `times` PUTs of this part come too late: their URL has expired."""
        self._order(_Fault(part, times, xml_reply(403, "AccessDenied", "Request has expired")))

    def fail_part(self, part: int, *, status: int, retry_after: int | None = None, times: int = 1) -> None:
        """The next `times` PUTs of this part are answered with `status`."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._order(_Fault(part, times, xml_reply(status, "OrderedFault", f"ordered fault {status}", headers)))

    def truncate_part(self, part: int, *, times: int = 1) -> None:
        """Keep the first half of this part only, and answer as if all was well."""
        self._order(_Fault(part, times))

    def shorten_chunk(self, *, times: int = 1) -> None:
        """Keep less than half of the next chunks in Google's way, and say so: a client must go on from there."""
        self._order(_Fault(_CHUNK, times))

    def handle(
        self,
        method: str,
        path: str,
        query: Mapping[str, list[str]],
        headers: Mapping[str, str],
        body: BinaryIO,
        length: int,
    ) -> Reply | None:
        """The answer, or None where the path is not of the Files API.

        `path` is percent-encoded as it came, without the query. Whatever the answer, the body has been read.
        """
        call = Call(method, path, query, {k.lower(): v for k, v in headers.items()}, Body(body, length))
        route = self._route(call)
        if route is None:
            return None
        try:
            reply = route()
        except RefusalError as refusal:
            reply = refusal.reply
        for _ in call.body.blocks():
            pass
        return replace(reply, body=b"") if method == "HEAD" else reply

    def _order(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _take(self, part: int) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.part == part and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def _route(self, call: Call) -> Callable[[], Reply] | None:
        if call.path.startswith(PRESIGNED):
            return lambda: self._presigned(call)
        if call.path.startswith(_FILES):
            return lambda: self._file(call, _path(call.path, _FILES))
        if call.path.startswith(_FOLDERS):
            return lambda: self._folder(call, _path(call.path, _FOLDERS))
        create = {
            "create-upload-part-urls": self._part_urls,
            "create-resumable-upload-url": self._session_url,
            "create-abort-upload-url": self._abort_url,
            "create-upload-url": self._upload_url,
            "create-download-url": self._download_url,
        }.get(call.path.removeprefix(_FS))
        return (lambda: create(call)) if create and call.method == "POST" else None

    # Files

    def _file(self, call: Call, path: str) -> Reply:
        if call.method in ("GET", "HEAD"):
            return content(call, self._existing(path))
        if call.method == "PUT":
            self._check_overwrite(call, path)
            return self._put(call, path)
        if call.method == "DELETE":
            self._existing(path).unlink()
            return empty_reply(204)
        if call.method == "POST" and (action := call.asked("action")):
            return self._act(call, path, action)
        raise RefusalError(400, "INVALID_PARAMETER_VALUE", "no such action")

    def _act(self, call: Call, path: str, action: str) -> Reply:
        if action == "initiate-upload":
            return self._initiate(call, path)
        if action == "complete-upload":
            return self._complete(call, path)
        if action == "abort-upload":
            return self._abort(call.asked("session_token"))
        raise RefusalError(400, "INVALID_PARAMETER_VALUE", f"no such action: {action}")

    def _existing(self, path: str) -> Path:
        if not (file := self.root / path[1:]).is_file():
            raise RefusalError(404, "NOT_FOUND", "The file being accessed is not found.")
        return file

    def _check_overwrite(self, call: Call, path: str) -> None:
        if call.asked("overwrite", "true") != "true" and (self.root / path[1:]).exists():
            raise RefusalError(409, "ALREADY_EXISTS", "The file being created already exists.")

    def _put(self, call: Call, path: str) -> Reply:
        arriving = self._unfinished / secrets.token_hex(8)
        self._receive(call.body, arriving)
        self._finish(arriving, path)
        return empty_reply(204)

    def _receive(self, body: Body, target: Path) -> str:
        """The MD5 of what was written; a body that ends too early leaves nothing."""
        digest = hashlib.md5(usedforsecurity=False)
        with target.open("wb") as file:
            for block in body.blocks():
                digest.update(block)
                file.write(block)
        if body.left:
            target.unlink()
            raise RefusalError(400, "BAD_REQUEST", "The body is shorter than its Content-Length.")
        return digest.hexdigest()

    def _finish(self, arrived: Path, path: str) -> None:
        target = self.root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        arrived.replace(target)

    # Folders

    def _folder(self, call: Call, path: str) -> Reply:
        folder = self.root / path[1:]
        if call.method == "PUT":
            folder.mkdir(parents=True, exist_ok=True)
            return empty_reply(204)
        if not folder.is_dir():
            raise RefusalError(404, "NOT_FOUND", "The directory being accessed is not found.")
        if call.method == "GET":
            return listing(call, self.root, folder)
        if call.method == "DELETE":
            if any(folder.iterdir()):
                message = "The directory is not empty. This operation is only supported on empty directories."
                raise RefusalError(400, "FILES_API_DIRECTORY_IS_NOT_EMPTY", message)
            folder.rmdir()
            return empty_reply(204)
        return empty_reply(200)

    # Uploads in parts

    def _initiate(self, call: Call, path: str) -> Reply:
        self._check_overwrite(call, path)
        token = secrets.token_hex(16)
        if self.resumable:
            with self._lock:
                self._sessions[token] = Resumable(path, self._unfinished / token)
            return document({"resumable_upload": {"session_token": token}})
        folder = self._unfinished / token
        folder.mkdir()
        with self._lock:
            self._uploads[token] = _Upload(path, folder)
        return document({"multipart_upload": {"session_token": token}})

    def _upload(self, token: str) -> _Upload:
        with self._lock:
            if upload := self._uploads.get(token):
                return upload
        raise RefusalError(404, "NOT_FOUND", "The upload session is not found.")

    def _put_part(self, call: Call, token: str, number: int) -> Reply:
        if token not in self._uploads:
            return xml_reply(404, "NoSuchUpload", "The specified upload does not exist.")
        fault = self._take(number)
        if fault and fault.reply:
            return fault.reply
        upload = self._upload(token)
        arriving = upload.folder / f"{number}.{secrets.token_hex(4)}"
        etag = self._receive(call.body, arriving)
        if fault:
            os.truncate(arriving, arriving.stat().st_size // 2)
        with self._lock:
            arriving.replace(upload.folder / str(number))
            upload.etags[number] = etag
        return empty_reply(200, {"ETag": f'"{etag}"'})

    def _complete(self, call: Call, path: str) -> Reply:
        token = call.asked("session_token")
        upload = self._upload(token)
        named = {int(p["part_number"]): str(p["etag"]).strip('"') for p in call.body.document()["parts"]}
        if path != upload.path or not named or any(upload.etags.get(n) != etag for n, etag in named.items()):
            message = "One or more of the specified parts could not be found, or its ETag does not match."
            raise RefusalError(400, "INVALID_PARAMETER_VALUE", message)
        first, *others = sorted(named)
        whole = upload.folder / str(first)
        for number in others:
            _append(upload.folder / str(number), whole)
        self._finish(whole, path)
        return self._abort(token)

    def _abort(self, token: str) -> Reply:
        upload = self._upload(token)
        with self._lock:
            del self._uploads[token]
        shutil.rmtree(upload.folder)
        return document({})

    # Presigned URLs

    def _part_urls(self, call: Call) -> Reply:
        said = call.body.document()
        token, first = str(said["session_token"]), int(said["start_part_number"])
        self._upload(token)
        last = first + int(said["count"]) - 1
        if first < 1 or last > _PARTS:
            raise RefusalError(400, "INVALID_PARAMETER_VALUE", f"Part number must be between 1 and {_PARTS}.")
        urls = [
            {"part_number": number, **self._signed("PUT", f"part/{token}/{number}", said)}
            for number in range(first, last + 1)
        ]
        return document({"upload_part_urls": urls})

    def _session_url(self, call: Call) -> Reply:
        said = call.body.document()
        if said["session_token"] not in self._sessions:
            raise RefusalError(404, "NOT_FOUND", "The upload session is not found.")
        session = self._signed("PUT", f"session/{said['session_token']}", said)
        return document({"resumable_upload_url": {**session, "headers": []}})

    def _chunk(self, call: Call, token: str) -> Reply:
        """An address of Google's serves all of its session, without a header that was signed."""
        with self._lock:
            session = self._sessions.get(token)
        if session is None:
            return xml_reply(404, "NoSuchUpload", "The upload session is not found.")
        if call.method == "DELETE":
            with self._lock:
                del self._sessions[token]
            return session.cancelled()
        reply = session.put(call, shortened=self._take(_CHUNK) is not None)
        if reply.status == 200 and not session.finished:
            self._finish(session.arriving, session.path)
            session.finished = True
        return reply

    def _abort_url(self, call: Call) -> Reply:
        said = call.body.document()
        self._upload(str(said["session_token"]))
        return document({"abort_upload_url": self._signed("DELETE", f"abort/{said['session_token']}", said)})

    def _upload_url(self, call: Call) -> Reply:
        said = call.body.document()
        return document(self._signed("PUT", f"whole{quote(said['path'])}", said))

    def _download_url(self, call: Call) -> Reply:
        said = {**call.body.document(), **{name: values[-1] for name, values in call.query.items()}}
        self._existing(said["path"])
        return document(self._signed("GET", f"whole{quote(said['path'])}", said))

    def _signed(self, method: str, target: str, said: Mapping[str, Any]) -> dict[str, Any]:
        """A URL for one method and one target, and the headers that must come with it."""
        asked = said.get("expire_time")
        expires = int(datetime.fromisoformat(asked).timestamp()) if asked else int(time.time()) + _LIFETIME
        with self._lock:
            self._issued += 1
            issued = self._issued
        path = f"{PRESIGNED}{target}"
        query = f"issued={issued}&expires={expires}&X-Amz-Signature={self._mac(method, path, issued, expires)}"
        headers = [{"name": name, "value": value} for name, value in _REQUIRED.items()] if method == "PUT" else []
        return {"url": f"{self._base()}{path}?{query}", "headers": headers}

    def _mac(self, method: str, path: str, issued: int, expires: int) -> str:
        return hmac.new(self._key, f"{method} {path} {issued} {expires}".encode(), hashlib.sha256).hexdigest()

    def _presigned(self, call: Call) -> Reply:
        issued, expires = int(call.asked("issued", "0")), int(call.asked("expires", "0"))
        kind, _, target = call.path.removeprefix(PRESIGNED).partition("/")
        mac = self._mac("PUT" if kind == "session" else call.method, call.path, issued, expires)
        required = _REQUIRED if call.method == "PUT" and kind != "session" else {}
        if "authorization" in call.headers:
            return xml_reply(400, "InvalidArgument", "Only one auth mechanism allowed")
        if not hmac.compare_digest(mac, call.asked("X-Amz-Signature")) or any(
            call.headers.get(name) != value for name, value in required.items()
        ):
            return xml_reply(
                403, "SignatureDoesNotMatch", "The request signature does not match the signature you provided."
            )
        if expires <= time.time() or issued <= self._expired:
            return xml_reply(403, "AccessDenied", "Request has expired")
        if kind == "session":
            return self._chunk(call, target)
        if kind == "part":
            token, number = target.split("/")
            return self._put_part(call, token, int(number))
        if kind == "abort":
            self._abort(target)
            return empty_reply(204)
        path = f"/{unquote(target)}"
        return self._put(call, path) if call.method == "PUT" else content(call, self._existing(path))


def _path(path: str, prefix: str) -> str:
    """The absolute path that a request names."""
    parts = [part for part in unquote(path.removeprefix(prefix)).split("/") if part]
    if not parts or any(part in (".", "..") for part in parts) or parts[0].startswith("."):
        raise RefusalError(400, "INVALID_PARAMETER_VALUE", "Invalid path.")
    return "/" + "/".join(parts)


def _append(part: Path, whole: Path) -> None:
    with part.open("rb") as source, whole.open("ab") as target:
        shutil.copyfileobj(source, target, _BLOCK)
    part.unlink()
