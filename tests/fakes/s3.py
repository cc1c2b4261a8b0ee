"""A real S3 server on loopback (versitygw over a folder), and a proxy in front of it that counts and disturbs.

Neither knows anything of catalogger. The server is built once with Go and kept in the user's cache.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from catalogger.testing.loopback import Loopback, Quiet
from catalogger.testing.tracking import free_port
from fakes.s3_signing import TOKEN, out_of_query, resigned
from fakes.secrets import secret
from fakes.throttle import Throttle

VERSION = "v1.8.0"
_MODULE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
_OWN = ".sgwtmp"  # where the server keeps unfinished uploads, within the bucket's folder
_BLOCK = 1 << 18
_FILES = ("config_file", "credentials_file")
_DATE = "Mon, 01 Jan 2024 00:00:00 GMT"
_NO_LINGER = struct.pack("ii", 1, 0)  # closing sends a reset


def server_binary() -> Path:
    """The server's program, built at the first call on a machine; two callers at once build it once.

    Raises CalledProcessError where it cannot be built.
    """
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # tests point HOME elsewhere
    folder = home / ".cache" / "versitygw" / VERSION
    binary = folder / "versitygw"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            with tempfile.TemporaryDirectory(dir=folder) as fresh:
                env = {k: v for k, v in os.environ.items() if k != "XDG_CACHE_HOME"}
                subprocess.run(["go", "install", _MODULE], env=env | {"HOME": str(home), "GOBIN": fresh}, check=True)
                (Path(fresh) / "versitygw").rename(binary)
    return binary


class S3Server:
    """The server, started by `with`, over a temporary folder with one bucket in it.

    With `many_parts` it takes objects of more parts than about a thousand: what it notes of an object then stands in
    files, and not in the object's extended attributes, for which ext4 has a block of 4 KiB.
    """

    def __init__(self, bucket: str = "models", region: str = "us-east-1", *, many_parts: bool = False) -> None:
        self.bucket, self.region, self._many_parts = bucket, region, many_parts
        name = uuid.uuid4().hex
        self.access_key, self.secret_key = secret(name, "access key"), secret(name, "secret key")
        self.endpoint = ""
        self._folder = self._notes = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> S3Server:
        binary = server_binary()
        self._folder = Path(tempfile.mkdtemp(prefix="s3-"))
        (self._folder / self.bucket).mkdir()
        self._notes = Path(tempfile.mkdtemp(prefix="s3-notes-"))
        try:
            while not self._started(binary):
                pass  # somebody else took the port that was free
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(30)
        shutil.rmtree(self._folder)
        shutil.rmtree(self._notes)

    def _started(self, binary: Path) -> bool:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(binary), "--port", f"127.0.0.1:{port}", "--region", self.region, "--quiet", "--keep-alive",
                 "--health", "/health", "posix", *(("--sidecar", str(self._notes)) if self._many_parts else ()),
                 str(self._folder)],
                env={"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key},
                stdout=log,
                stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                said = (self._folder / "log").read_text()
                if "address already in use" in said:
                    return False
                raise RuntimeError(f"versitygw ended: {said}")
            with suppress(OSError), urllib.request.urlopen(f"{self.endpoint}/health", timeout=5):  # noqa: S310
                return True
            time.sleep(0.02)  # between two looks
        raise TimeoutError(self.endpoint)

    @property
    def objects(self) -> dict[str, int]:
        """Every finished object, with its size in bytes."""
        root = self._folder / self.bucket
        paths = (path for path in root.rglob("*") if path.is_file() and _OWN not in path.parts)
        return {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}

    def path(self, key: str) -> Path:
        """Where an object lies on the disk; a file put there is an object too, one without checksums."""
        return self._folder / self.bucket / key

    def content(self, key: str) -> bytes:
        """The bytes of an object, as they lie on the disk."""
        return self.path(key).read_bytes()

    @cached_property
    def _client(self) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        nothing = (None, None, None, None)
        return Session(
            session_vars={"profile": nothing} | dict.fromkeys(_FILES, (None, None, os.devnull, None))
        ).create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(signature_version="s3v4", proxies={}),
        )

    def client(self) -> Any:
        """A client of botocore with the server's keys and none of this machine's settings, past any proxy."""
        return self._client

    @property
    def uploads(self) -> list[str]:
        """The keys of all unfinished multipart uploads, one each."""
        pages = self.client().get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket)
        return [upload["Key"] for page in pages for upload in page.get("Uploads", [])]


@dataclass(frozen=True)
class Request:
    """One request as it came: `received` and `sent` count body bytes, `status` is None where none was answered,
    `seconds` passed until the answer began.

    `line` is what patterns are matched with: `PUT /bucket/some key?partNumber=1&uploadId=x`.
    """

    method: str
    line: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    status: int | None = None
    received: int = 0
    sent: int = 0
    seconds: float = 0

    @property
    def token(self) -> str | None:
        """The session token that it came with."""
        return next((value for name, value in self.headers.items() if name.lower() == TOKEN), None)


@dataclass
class _Fault:
    kind: Literal["fail", "reset", "stall", "page"]
    pattern: str
    times: int
    skip: int
    when: Literal["before", "amid", "after"] = "before"
    status: int = 0
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class S3Proxy:
    """The proxy before the server, started by `with`. It changes no byte that it passes on, so signatures hold.

    The server knows no session tokens. Requests with one of `tokens` are signed anew without it, by the server's keys;
    all others are refused by the server (InvalidToken), those of `expired` by the proxy as Amazon does (ExpiredToken).
    `on_request` is called with each request before it is handled, in the request's own thread. Bodies come in through
    `throttle`, where there is one; it may be exchanged at any time.
    """

    def __init__(self, server: S3Server) -> None:
        self.on_request: Callable[[Request], None] | None = None
        self.throttle: Throttle | None = None
        self.tokens: set[str] = set()
        self.expired: set[str] = set()
        self._target = urlsplit(server.endpoint).netloc
        self._keys = (server.access_key, server.secret_key)
        self._requests: list[Request] = []
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._server = Loopback(partial(_Handler, self))
        self.endpoint = self._server.url

    def __enter__(self) -> S3Proxy:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far, oldest first; a snapshot."""
        with self._lock:
            return tuple(self._requests)

    def matching(self, pattern: str) -> list[Request]:
        """The requests whose line holds the pattern, a regular expression."""
        return [request for request in self.requests if re.search(pattern, request.line)]

    def received(self, pattern: str = "") -> int:
        """Body bytes that came in with these requests."""
        return sum(request.received for request in self.matching(pattern))

    def forget(self) -> None:
        """Begin the record anew, while no request is under way."""
        with self._lock:
            self._requests.clear()

    def fail(
        self,
        pattern: str,
        status: int,
        code: str,
        *,
        times: int = 1,
        skip: int = 0,
        retry_after: str | None = None,
    ) -> None:
        """Answer the next requests that match with an S3 error, before their body is read.

        The first `skip` of them are left alone.
        """
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        self._order(_Fault("fail", pattern, times, skip, status=status, code=code, headers=headers))

    def reset(
        self, pattern: str, when: Literal["before", "amid", "after"] = "before", *, times: int = 1, skip: int = 0
    ) -> None:
        """Reset the connection before the action, in the middle of the body (of the answer, where the request has
        none), or after the action in place of the answer.
        """
        self._order(_Fault("reset", pattern, times, skip, when))

    def stall(self, pattern: str, *, times: int = 1, skip: int = 0) -> None:
        """Read the request, do nothing, and never answer."""
        self._order(_Fault("stall", pattern, times, skip))

    def page(self, pattern: str, *, times: int = 1, skip: int = 0) -> None:
        """Do nothing, and answer 200 with a web page (well-formed, which botocore takes for an answer)."""
        self._order(_Fault("page", pattern, times, skip, status=200))

    def _order(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _take(self, request: Request) -> _Fault | None:
        if request.token in self.expired:
            return _Fault("fail", "", 1, 0, status=400, code="ExpiredToken")
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and re.search(fault.pattern, request.line):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def _record(self, request: Request) -> int:
        with self._lock:
            self._requests.append(request)
            return len(self._requests) - 1

    def _update(
        self, index: int, *, received: int = 0, sent: int = 0, status: int | None = None, seconds: float = 0
    ) -> None:
        with self._lock:
            if index < len(self._requests):  # a stalled one may outlive `forget`
                was = self._requests[index]
                self._requests[index] = replace(
                    was,
                    received=was.received + received,
                    sent=was.sent + sent,
                    status=status or was.status,
                    seconds=seconds or was.seconds,
                )


class _ResetError(ConnectionError):
    """An order to reset the connection was carried out."""


class _Handler(Quiet, BaseHTTPRequestHandler):
    def __init__(self, proxy: S3Proxy, *args: object) -> None:
        self.proxy = proxy
        super().__init__(*args)  # type: ignore[arg-type]  # socketserver's three positional arguments

    def handle_expect_100(self) -> bool:
        return True  # said by _body, so that a refused request need not send it

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        _, bucket, key = (unquote(url.path) + "//").split("/", 2)
        line = f"{self.command} {unquote(url.path)}" + (f"?{url.query}" if url.query else "")
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        request = Request(self.command, line, bucket, key.rstrip("/"), query, dict(self.headers.items()))
        self._index, self._began = self.proxy._record(request), time.monotonic()
        if self.proxy.on_request:
            self.proxy.on_request(request)
        fault = self.proxy._take(request)
        if fault is None or fault.kind == "reset":
            self._pass_on(fault.when if fault else None)
        elif fault.kind == "fail":
            text = f"<Error><Code>{fault.code}</Code><Message>ordered fault {fault.code}</Message></Error>"
            self._reply(fault, text, "application/xml")
        elif fault.kind == "page":
            self._reply(fault, "<html><p>Please log in</p></html>", "text/html")
        else:
            for _ in self._body():
                pass
            self.connection.recv(1)  # until the client or the server gives up
            self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  the names that http.server calls

    def _reply(self, fault: _Fault, text: str, kind: str) -> None:
        headers = {**fault.headers, "Date": _DATE, "Content-Type": kind}
        if self.headers.get("Expect"):
            headers["Connection"] = "close"  # the body will not come
        else:
            for _ in self._body():
                pass
        self.proxy._update(self._index, status=fault.status)
        self.send_response_only(fault.status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def _pass_on(self, reset: Literal["before", "amid", "after"] | None) -> None:
        if reset == "before":
            self._reset()
        upstream = HTTPConnection(self.proxy._target, timeout=600)
        try:
            target, headers = self._signed()
            upstream.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
            for key, value in headers:
                upstream.putheader(key, value)
            upstream.endheaders()
            half = int(self.headers.get("Content-Length") or 0) // 2 if reset == "amid" else None
            self._pass_body(upstream, half)
            response = upstream.getresponse()
            if reset == "after":
                response.read()
                self._reset()
            self._answer(response, amid=reset == "amid")
        except (HTTPException, TimeoutError) as error:
            raise ConnectionError("the server hung up") from error
        finally:
            upstream.close()

    def _signed(self) -> tuple[str, list[tuple[str, str]]]:
        target, headers = out_of_query(self.path, self.headers.items())
        if not any(name.lower() == TOKEN and value in self.proxy.tokens for name, value in headers):
            return self.path, self.headers.items()
        return target, resigned(self.command, target, headers, *self.proxy._keys)

    def _pass_body(self, upstream: HTTPConnection, half: int | None) -> None:
        count = 0
        for block in self._body():
            count += len(block)
            if half and count >= half:
                upstream.close()
                self._reset()
            try:
                upstream.send(block)
            except (BrokenPipeError, ConnectionResetError):  # the server may answer before the body's end
                self.close_connection = True
                return

    def _body(self) -> Iterator[bytes]:
        """The body's blocks as they are on the wire, chunk heads and all."""
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding"):
            yield from self._chunks()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            block = self.rfile.read1(min(_BLOCK, left))
            if not block:
                raise ConnectionError("the client hung up")
            left -= len(block)
            self._took(len(block))
            yield block

    def _chunks(self) -> Iterator[bytes]:
        size = 1
        while size:
            head = self.rfile.readline()
            size = int(head.partition(b";")[0], 16)
            block = self.rfile.read(size)
            self._took(len(block))
            yield head + block + self.rfile.readline()

    def _took(self, count: int) -> None:
        if self.proxy.throttle:
            self.proxy.throttle.take(count)
        self.proxy._update(self._index, received=count)

    def _answer(self, response: HTTPResponse, *, amid: bool) -> None:
        seconds = time.monotonic() - self._began
        self.proxy._update(self._index, status=response.status, seconds=seconds)  # before a client has its reply
        self.send_response_only(response.status, response.reason)
        for key, value in response.getheaders():
            self.send_header(key, value)
        if self.close_connection or response.getheader("Content-Length") is None:
            self.send_header("Connection", "close")
        self.end_headers()
        half = int(response.getheader("Content-Length") or 0) // 2 if amid else None
        count = 0
        while block := response.read1(_BLOCK if half is None else max(half - count, 1)):
            count += len(block)
            self.proxy._update(self._index, sent=len(block))
            self.wfile.write(block)
            if half and count >= half:
                self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        raise _ResetError
