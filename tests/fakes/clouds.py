"""Loopback stand-ins of three storages: Azure Data Lake, Google Cloud, and a Databricks workspace's default storage.

Each speaks what the unmodified clients need to send, list, read and remove files, keeps them on disk, and takes orders
for faults.  Wording of refusals: as the clouds send it.  They must not know anything of who calls.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import shutil
import ssl
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socket import SHUT_RDWR
from typing import BinaryIO, Literal, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from catalogger.testing.loopback import Loopback, Quiet
from fakes.secrets import secret

_NOW = formatdate(usegmt=True)
FOREVER = math.inf
"""For `Server.valid`: a credential that does not expire."""


@dataclass(frozen=True)
class Call:
    """One request as it came.  `body` gives its next bytes; what is left of it is dropped after the answer."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    length: int
    body: BinaryIO

    def save(self, target: BinaryIO, count: int | None = None) -> None:
        """Write the body, or its next bytes, to a file that is open."""
        left = self.length if count is None else count
        while left:
            block = self.body.read(min(left, 1 << 18))
            if not block:
                raise ConnectionError("the client hung up in its body")
            target.write(block)
            left -= len(block)


@dataclass(frozen=True)
class Reply:
    """What goes back: a small body, or a file; `length` is said instead of the body's own where it is set."""

    status: int
    body: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass(frozen=True)
class Request:
    """One request as it was answered: `credential` is what it carried, `size` the length of its body in bytes."""

    method: str
    path: str
    query: Mapping[str, str]
    credential: str | None
    size: int
    status: int


_Kind = Literal["fail", "reset", "lose", "cut", "hook"]


@dataclass
class _Order:
    method: str
    pattern: re.Pattern[str]
    times: int
    kind: _Kind
    reply: Reply = Reply(503)
    hook: Callable[[], None] = lambda: None


class Service(Protocol):
    """One kind of storage behind a server."""

    def credential(self, call: Call) -> str | None: ...

    def answer(self, call: Call) -> Reply: ...

    def unasked(self, call: Call) -> Reply | None:
        """The answer to what a client asks for itself, in its own time: neither counted nor kept."""

    def denied(self, call: Call) -> Reply: ...

    def refusal(self, status: int, code: str, message: str) -> Reply: ...


class Authority:
    """A certificate authority made on the spot: `file` is what a client may trust, `server` what Azure's hosts show."""

    def __init__(self, folder: Path) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        def certificate(name: str, of: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> x509.Certificate:
            subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
            now = datetime.now(UTC)
            identifiers = (
                x509.SubjectKeyIdentifier.from_public_key(of.public_key()),
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
            )
            built = x509.CertificateBuilder(
                x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")]),
                subject,
                of.public_key(),
                x509.random_serial_number(),
                now - timedelta(hours=1),
                now + timedelta(hours=1),
                [x509.Extension(e.oid, False, e) for e in identifiers]
                + [x509.Extension(extension.oid, True, extension)],
            )
            return built.sign(key, hashes.SHA256())

        pem = serialization.Encoding.PEM
        key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.file = folder / "authority.pem"
        self.file.write_bytes(certificate("tests", key, x509.BasicConstraints(True, None)).public_bytes(pem))
        names = [x509.DNSName(f"*.{kind}.core.windows.net") for kind in ("dfs", "blob")]
        shown = folder / "server.pem"
        shown.write_bytes(
            own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + certificate("core.windows.net", own, x509.SubjectAlternativeName(names)).public_bytes(pem)
        )
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(shown)


class Server:
    """A storage on a free port of 127.0.0.1, from `with` to its end.

    `valid` holds the credentials that are taken, each with the number of requests that it is good for.
    """

    def __init__(self, service: Service, authority: Authority | None = None) -> None:
        self.service, self.authority = service, authority
        self.valid: dict[str, float] = {}
        self._orders: list[_Order] = []
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        self._http = Loopback(partial(_Handler, self), goodbye=True)
        self.url = self._http.url

    def __enter__(self) -> Server:
        self._http.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer no more; a second time is none."""
        if self._http.fileno() >= 0:
            self._http.stop()

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request that was answered so far, oldest first."""
        with self._lock:
            return tuple(self._requests)

    def fail(
        self, method: str, pattern: str, status: int, code: str = "", *, times: int = 1, retry_after: str | None = None
    ) -> None:
        """Refuse the next requests of this method whose path and query match, in the cloud's own form."""
        refusal = self.service.refusal(status, code, "ordered")
        headers = {**refusal.headers, **({"Retry-After": retry_after} if retry_after is not None else {})}
        self._order(method, pattern, times, "fail", Reply(status, refusal.body, headers))

    def reset(self, method: str, pattern: str, *, times: int = 1) -> None:
        """Hang up on the next requests that match, before anything is done."""
        self._order(method, pattern, times, "reset")

    def lose(self, method: str, pattern: str, *, times: int = 1) -> None:
        """Do what the next requests that match ask for, and hang up in place of an answer."""
        self._order(method, pattern, times, "lose")

    def cut(self, method: str, pattern: str, *, times: int = 1) -> None:
        """Hang up after half the body of the next answers to what matches."""
        self._order(method, pattern, times, "cut")

    def hook(self, method: str, pattern: str, hook: Callable[[], None]) -> None:
        """Call this before the next request that matches is answered."""
        self._orders.append(_Order(method, re.compile(pattern), 1, "hook", hook=hook))

    def _order(
        self,
        method: str,
        pattern: str,
        times: int,
        kind: Literal["fail", "reset", "lose", "cut"],
        reply: Reply = Reply(503),
    ) -> None:
        with self._lock:
            self._orders.append(_Order(method, re.compile(pattern), times, kind, reply))

    def _take(self, method: str, target: str) -> _Order | None:
        with self._lock:
            for order in self._orders:
                if order.times > 0 and order.method == method and order.pattern.search(target):
                    order.times -= 1
                    return order
        return None

    def _lets_in(self, credential: str | None) -> bool:
        """Whether the credential is good for one request more, which is counted."""
        with self._lock:
            if credential is None or self.valid.get(credential, 0) < 1:
                return False
            self.valid[credential] -= 1
            return True

    def _handle(self, call: Call, target: str) -> Reply | None:
        """The answer, or None to hang up."""
        if unasked := self.service.unasked(call):
            return unasked
        order = self._take(call.method, target)
        if order and order.kind == "hook":
            order.hook()
        if order and order.kind in ("fail", "reset"):
            reply = order.reply if order.kind == "fail" else None
        else:
            reply = self._answer(call)
            reply = None if order and order.kind == "lose" else _half(reply) if order and order.kind == "cut" else reply
        with self._lock:
            self._requests.append(
                Request(
                    call.method,
                    call.path,
                    call.query,
                    self.service.credential(call),
                    call.length,
                    reply.status if reply else 0,
                )
            )
        return reply

    def _answer(self, call: Call) -> Reply:
        if not self._lets_in(self.service.credential(call)):
            return self.service.denied(call)
        return self.service.answer(call)


class Azure:
    """The Data Lake's and the blob endpoint of one account, with one container.  Its credential is the SAS."""

    def __init__(self, root: Path, container: str) -> None:
        self.root, self._container = root, container
        self.md5: dict[str, str] = {}  # of files that were sent with one
        self._open: dict[str, int] = {}  # bytes of files that are not flushed yet
        self.page = 5000

    def credential(self, call: Call) -> str | None:
        return "&".join(f"{key}={call.query[key]}" for key in ("sv", "se", "sig") if key in call.query) or None

    def unasked(self, _: Call) -> Reply | None:
        return None

    def denied(self, _: Call) -> Reply:
        return self.refusal(403, "AuthenticationFailed", "Server failed to authenticate the request.")

    def refusal(self, status: int, code: str, message: str) -> Reply:
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        return Reply(status, body, {"Content-Type": "application/json", "x-ms-error-code": code})

    def answer(self, call: Call) -> Reply:
        container, _, path = call.path.strip("/").partition("/")
        if container != self._container:
            return self.refusal(404, "FilesystemNotFound", "The specified filesystem does not exist.")
        if not path:
            return self._list(call)
        if call.method == "PUT":
            return self._create(path)
        if not (self.root / path).is_file():
            blob = ".blob." in call.host
            return self.refusal(404, "BlobNotFound" if blob else "PathNotFound", "The specified path does not exist.")
        return {"PATCH": self._patch, "HEAD": self._head, "GET": self._get, "DELETE": self._delete}[call.method](
            call, path
        )

    def _create(self, path: str) -> Reply:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"")
        (self.root / f"{path}.open").write_bytes(b"")
        self._open[path] = 0
        self.md5.pop(path, None)
        return Reply(201, headers={"ETag": '"0x1"', "Last-Modified": _NOW})

    def _patch(self, call: Call, path: str) -> Reply:
        position, unfinished = int(call.query["position"]), self.root / f"{path}.open"
        if call.query["action"] == "append":
            with unfinished.open("r+b") as stream:
                stream.seek(position)
                call.save(stream)
            self._open[path] = max(self._open[path], position + call.length)
            return Reply(202)
        if position != self._open.get(path, position) or position != unfinished.stat().st_size:
            return self.refusal(400, "InvalidFlushPosition", "The uploaded data is not contiguous.")
        shutil.copyfile(unfinished, self.root / path)
        if "x-ms-content-md5" in call.headers:
            self.md5[path] = call.headers["x-ms-content-md5"]
        return Reply(200, headers={"ETag": '"0x2"', "Last-Modified": _NOW})

    def _list(self, call: Call) -> Reply:
        folder = self.root / call.query.get("directory", "")
        if not folder.is_dir():
            return self.refusal(404, "PathNotFound", "The specified path does not exist.")
        found = [
            {"name": path.relative_to(self.root).as_posix(), "isDirectory": "true"}
            if path.is_dir()
            else {"name": path.relative_to(self.root).as_posix(), "contentLength": str(path.stat().st_size)}
            for path in sorted(folder.rglob("*"))
            if path.suffix != ".open"
        ]
        start = int(call.query.get("continuation", "0"))
        more = {"x-ms-continuation": str(start + self.page)} if start + self.page < len(found) else {}
        return _json({"paths": found[start : start + self.page]}, headers=more)

    def _head(self, _: Call, path: str) -> Reply:
        target = self.root / path
        md5 = {"Content-MD5": self.md5[path]} if path in self.md5 else {}
        headers = {"ETag": '"0x2"', "Last-Modified": _NOW, "x-ms-blob-type": "BlockBlob", **md5}
        return Reply(200, headers=headers, length=target.stat().st_size)

    def _get(self, call: Call, path: str) -> Reply:
        content = (self.root / path).read_bytes()
        if not content:
            return self.refusal(416, "InvalidRange", "The range specified is invalid for the current size.")
        asked = call.headers.get("x-ms-range", "bytes=0-")
        first, last = asked.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1 if last else None]
        said = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        headers = {"Content-Range": said, "ETag": '"0x2"', "Last-Modified": _NOW, "x-ms-blob-type": "BlockBlob"}
        return Reply(206, part, headers)

    def _delete(self, _: Call, path: str) -> Reply:
        (self.root / path).unlink()
        return Reply(200)


class Google:
    """The JSON interface of Cloud Storage with one bucket.  Its credential is the bearer token."""

    def __init__(self, root: Path, bucket: str) -> None:
        self.root, self._bucket = root, bucket
        self.page = 1000
        self.keeps = math.inf  # bytes of the next part that are kept, the rest of it is dropped
        self._sessions: dict[str, tuple[str, Path]] = {}

    def credential(self, call: Call) -> str | None:
        return call.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def unasked(self, call: Call) -> Reply | None:
        """Newer clients look at the bucket in a thread of their own."""
        if call.path != f"/storage/v1/b/{self._bucket}":
            return None
        return _json({"name": self._bucket, "projectNumber": "1", "location": "US"})

    def denied(self, _: Call) -> Reply:
        return self.refusal(401, "authError", "Invalid Credentials")

    def refusal(self, status: int, code: str, message: str) -> Reply:
        error = {"code": status, "message": message, "errors": [{"reason": code, "message": message}]}
        return _json({"error": error}, status)

    def answer(self, call: Call) -> Reply:
        if f"/b/{self._bucket}/o" not in call.path:
            return self.refusal(404, "notFound", "The specified bucket does not exist.")
        if call.path.startswith("/upload/"):
            return self._upload(call)
        name = unquote(call.path.partition("/o/")[2])
        if not name:
            return self._list(call)
        target = self.root / name
        if not target.is_file():
            return self.refusal(404, "notFound", f"No such object: {self._bucket}/{name}")
        if call.method == "DELETE":
            target.unlink()
            return Reply(204)
        if call.query.get("alt") == "media":
            return _whole_or_part(call, target)
        return _json(self._facts(name))

    def _facts(self, name: str) -> Mapping[str, str]:
        from google_crc32c import extend

        target = self.root / name
        md5, crc32c = hashlib.md5(usedforsecurity=False), 0
        with open(os.devnull if target.is_dir() else target, "rb") as stream:  # noqa: PTH123
            while block := stream.read(1 << 18):
                md5.update(block)
                crc32c = extend(crc32c, block)
        sums = {"md5Hash": md5.digest(), "crc32c": crc32c.to_bytes(4, "big")}
        facts = {"name": name, "bucket": self._bucket, "generation": "1", "size": str(target.stat().st_size)}
        return {"kind": "storage#object", **facts} | {key: base64.b64encode(sums[key]).decode() for key in sums}

    def _list(self, call: Call) -> Reply:
        """An empty folder is an object whose name ends with a slash, as the console makes them."""
        paths = [(p.relative_to(self.root).as_posix(), p) for p in self.root.rglob("*")]
        names = [name if p.is_file() else f"{name}/" for name, p in paths if p.is_file() or not any(p.iterdir())]
        found = [name for name in sorted(names) if name.startswith(call.query.get("prefix", ""))]
        start = int(call.query.get("pageToken", "0"))
        more = {"nextPageToken": str(start + self.page)} if start + self.page < len(found) else {}
        return _json({"items": [self._facts(name) for name in found[start : start + self.page]], **more})

    def _upload(self, call: Call) -> Reply:
        if call.query["uploadType"] == "multipart":
            return self._multipart(call)
        if call.method == "POST":
            name = json.loads(call.body.read(call.length))["name"]
            number = uuid.uuid4().hex
            session = secret(number, "session")
            unfinished = self.root.parent / f"unfinished-{number}"
            unfinished.touch()
            self._sessions[session] = (name, unfinished)
            address = f"http://{call.host}{call.path}?uploadType=resumable&upload_id={session}"
            return Reply(200, headers={"Location": address})
        return self._part(call)

    def _part(self, call: Call) -> Reply:
        """Bytes of a part that are there already are passed over, and a finished session says what it has made."""
        if call.query["upload_id"] not in self._sessions:
            return self.refusal(404, "notFound", "No such upload")
        name, unfinished = self._sessions[call.query["upload_id"]]
        said = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", call.headers["Content-Range"])
        assert said
        have = unfinished.stat().st_size if unfinished.exists() else int(said[3])
        if said[1] and int(said[1]) <= have:
            call.body.read(have - int(said[1]))
            with unfinished.open("ab") as stream:
                call.save(stream, int(min(max(int(said[2]) + 1 - have, 0), self.keeps)))
                have = stream.tell()
            self.keeps = math.inf
        if have < int(said[3]):
            return Reply(308, headers={"Range": f"bytes=0-{have - 1}"} if have else {})
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(unfinished, target)
        return _json(self._facts(name))

    def _multipart(self, call: Call) -> Reply:
        boundary = call.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
        _, about, content, _ = call.body.read(call.length).split(b"--" + boundary)
        name = json.loads(about.partition(b"\r\n\r\n")[2])["name"]
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
        return _json(self._facts(name))


class Default:
    """A workspace that signs addresses for each file, and the storage that takes them.

    Its credential is the bearer token, or the signature of an address, which is good for one request.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.page = 1000
        self.server: Server | None = None
        self.chunked = 0  # bodies of unknown length, which signed addresses do not take

    def credential(self, call: Call) -> str | None:
        signature = call.query.get("X-Amz-Signature")
        return signature or call.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def unasked(self, call: Call) -> Reply | None:
        return Reply(404) if call.path == "/.well-known/databricks-config" else None

    def denied(self, call: Call) -> Reply:
        if call.path.startswith("/signed/"):
            return self.refusal(403, "AccessDenied", "Request has expired")
        return _json({"error_code": "PERMISSION_DENIED", "message": "Invalid access token."}, 403)

    def refusal(self, status: int, code: str, message: str) -> Reply:
        """As the storage says it; the workspace's own refusals are JSON."""
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        return Reply(status, body.encode(), {"Content-Type": "application/xml"})

    def answer(self, call: Call) -> Reply:
        if call.path.startswith("/signed/"):
            return self._storage(call, self.root / call.path.removeprefix("/signed/"))
        if call.path in ("/api/2.0/fs/create-upload-url", "/api/2.0/fs/create-download-url"):
            return self._sign(json.loads(call.body.read(call.length))["path"])
        kind, _, path = call.path.removeprefix("/api/2.0/fs/").partition("/")
        target = self.root / path
        if kind == "directories" and target.is_dir():
            return self._list(call, target)
        if kind == "files" and call.method == "DELETE" and target.is_file():
            target.unlink()
            return Reply(204)
        return _json({"error_code": "NOT_FOUND", "message": f"No such path: {path}"}, 404)

    def _sign(self, path: str) -> Reply:
        assert self.server
        signature = secret(uuid.uuid4().hex, "signature")
        self.server.valid[signature] = 1
        url = f"{self.server.url}/signed{path}?X-Amz-Expires=900&X-Amz-Signature={signature}"
        return _json({"url": url, "headers": [{"name": "x-amz-server-side-encryption", "value": "AES256"}]})

    def _storage(self, call: Call, target: Path) -> Reply:
        if call.headers.get("x-amz-server-side-encryption") != "AES256" or "Authorization" in call.headers:
            return self.refusal(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        if "Transfer-Encoding" in call.headers:
            self.chunked += 1
            return self.refusal(501, "NotImplemented", "A header you provided implies functionality that is not there.")
        if call.method == "GET":
            if not target.is_file():
                return self.refusal(404, "NoSuchKey", "The specified key does not exist.")
            return _whole_or_part(call, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.root / f"unfinished-{uuid.uuid4().hex}"
        with unfinished.open("wb") as stream:
            call.save(stream)
        unfinished.replace(target)
        return Reply(200)

    def _list(self, call: Call, folder: Path) -> Reply:
        found = [
            {"path": f"/{path.relative_to(self.root).as_posix()}"}
            | ({"is_directory": True} if path.is_dir() else {"is_directory": False, "file_size": path.stat().st_size})
            for path in sorted(folder.iterdir())
        ]
        start = int(call.query.get("page_token", "0"))
        more = {"next_page_token": str(start + self.page)} if start + self.page < len(found) else {}
        return _json({"contents": found[start : start + self.page], **more})


def azure(root: Path, container: str, authority: Authority) -> Server:
    """An account that is reached by its real name through `Server.url` as HTTPS proxy."""
    return Server(Azure(root, container), authority)


def google(root: Path, bucket: str) -> Server:
    """A bucket that is reached by `Server.url` as STORAGE_EMULATOR_HOST."""
    return Server(Google(root, bucket))


def default(root: Path) -> Server:
    """A workspace that is reached by `Server.url` as DATABRICKS_HOST."""
    service = Default(root)
    service.server = Server(service)
    return service.server


def _whole_or_part(call: Call, target: Path) -> Reply:
    """The file, or the range of it that is asked for."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", call.headers.get("Range", ""))
    if asked is None:
        return Reply(200, target)
    content, start, end = target.read_bytes(), int(asked[1]), int(asked[2]) + 1
    part = content[start:end]
    said = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
    return Reply(206, part, {"Content-Range": said})


class _Handler(Quiet, BaseHTTPRequestHandler):
    def __init__(self, server: Server, *args: object) -> None:
        self.ours = server
        super().__init__(*args)  # type: ignore[arg-type]  # socketserver's three positional arguments

    def handle(self) -> None:
        with suppress(ssl.SSLError):
            super().handle()
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.close()

    def do_CONNECT(self) -> None:
        """As a proxy: the host that is asked for is this server itself, by the name that it was asked for."""
        host = self.path.partition(":")[0]
        if self.ours.authority is None or not host.endswith(".core.windows.net"):
            self.send_error(502)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        self.connection = self.ours.authority.server.wrap_socket(self.connection, server_side=True)
        self.ours._http.hold(self.connection)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        url = urlsplit(self.path)
        body = _Body(cast(BinaryIO, self.rfile), length)
        call = Call(
            self.command,
            self.headers.get("Host", ""),
            unquote(url.path),
            dict(parse_qsl(url.query)),
            cast(Mapping[str, str], self.headers),
            length,
            cast(BinaryIO, body),
        )
        reply = self.ours._handle(call, f"{unquote(url.path)}?{url.query}")
        if reply is None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(SHUT_RDWR)
            return
        body.drop()
        self._send(reply)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_PATCH(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def _send(self, reply: Reply) -> None:
        size = reply.body.stat().st_size if isinstance(reply.body, Path) else len(reply.body)
        self.send_response(reply.status)
        for key, value in reply.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(size if reply.length is None else reply.length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(reply.body, Path):
            with reply.body.open("rb") as stream:
                shutil.copyfileobj(stream, self.wfile)
        else:
            self.wfile.write(reply.body)


class _Body:
    """The bytes of one request, and none of the next."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream, self._left = stream, length

    def read(self, count: int) -> bytes:
        block = self._stream.read(min(count, self._left))
        self._left -= len(block)
        return block

    def drop(self) -> None:
        while self._left and self.read(1 << 18):
            pass


def _half(reply: Reply) -> Reply:
    body = reply.body.read_bytes() if isinstance(reply.body, Path) else reply.body
    return Reply(reply.status, body[: len(body) // 2], {**reply.headers, "Connection": "close"}, len(body))


def _json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})
