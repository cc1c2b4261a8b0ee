"""Files sent to a real S3 server, through a proxy that counts what was sent and disturbs it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes.s3 import Request, S3Proxy, S3Server
from fakes.secrets import MARK, secret
from hypothesis import given
from hypothesis import strategies as st
from remote.answering import Answering, answer, certificate

from catalogger.errors import (
    AccessDenied,
    CataloggerError,
    DiskError,
    NetworkUnreachable,
    Refused,
    RegistryError,
    UsageError,
)
from catalogger.files.digests import Tick
from catalogger.remote.parts import PART, Source, Span, Stopped, Window, spans
from catalogger.remote.s3 import S3Credentials, S3Storage
from catalogger.remote.s3_client import S3Client
from catalogger.remote.s3_unfinished import Unfinished, Upload
from catalogger.remote.storage import Sending, Sent

_numbers = itertools.count()
_SMALL = os.urandom(100_000)
NOBODY = secret("nobody", "access key"), secret("nobody", "secret key")
SESSIONS = [secret(f"session {number}", "session") for number in range(3)]
_LARGE = os.urandom(3 * PART + 777)  # four parts
_CHILD = """
import json, os, sys
from pathlib import Path
from catalogger.remote.s3 import S3Credentials, S3Storage
from catalogger.remote.storage import Sending

location, endpoint, key, secret, files = json.loads(sys.argv[1])
storage = S3Storage(location, lambda: S3Credentials(key, secret, endpoint=endpoint, region="us-east-1"), timeout=1e5)
storage.send([Sending(p, Path(s), os.path.getsize(s)) for p, s in files.items()], lambda _: None)
"""


class Place:
    """A location of the test's own, and the storage of catalogger for it."""

    def __init__(self, server: S3Server, proxy: S3Proxy, folder: Path) -> None:
        self.server, self.proxy, self.folder = server, proxy, folder
        self.prefix = f"t{next(_numbers)}/m"
        self.location = f"s3://{server.bucket}/{self.prefix}"
        self.asked: list[S3Credentials] = []  # what was handed out
        self.ticked = 0

    def storage(self, *, timeout: float = 60, **credentials: Any) -> S3Storage:
        return S3Storage(self.location, lambda: self.hand_out(**credentials), timeout=timeout)

    def hand_out(self, **changes: Any) -> S3Credentials:
        keys = {"access_key": self.server.access_key, "secret_key": self.server.secret_key}
        self.asked.append(S3Credentials(**{**keys, "endpoint": self.proxy.endpoint, "region": "us-east-1", **changes}))
        return self.asked[-1]

    def file(self, path: str, content: bytes = _LARGE, sha256: str | None = None) -> Sending:
        source = self.folder / path
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(content)
        return Sending(path, source, len(content), sha256)

    def tick(self, count: int) -> None:
        self.ticked += count

    def send(self, *files: Sending, timeout: float = 60, **credentials: Any) -> Sent:
        return self.storage(timeout=timeout, **credentials).send(files, self.tick)

    def content(self, path: str) -> bytes:
        return self.server.content(f"{self.prefix}/{path}")

    @property
    def objects(self) -> dict[str, int]:
        return {
            key.removeprefix(f"{self.prefix}/"): size
            for key, size in self.server.objects.items()
            if key.startswith(self.prefix)
        }

    @property
    def uploads(self) -> list[str]:
        """The keys of what is unfinished, here and at other places of the test."""
        return [key for key in self.server.uploads if key.startswith(self.prefix.split("/")[0] + "/")]

    @property
    def at(self) -> dict[str, str]:
        return {"Bucket": self.server.bucket, "Key": f"{self.prefix}/f"}

    def begun(self, parts: Mapping[int, bytes], **options: Any) -> str:
        """An unfinished upload of the file `f`, as another program would begin it."""
        client = self.server.client()
        upload: str = client.create_multipart_upload(**self.at, **options)["UploadId"]
        for number, part in parts.items():
            checksum = {"ChecksumCRC32": _crc32(part)} if options else {}
            client.upload_part(**self.at, UploadId=upload, PartNumber=number, Body=part, **checksum)
        return upload


@pytest.fixture
def place(s3_server: S3Server, s3: S3Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "20")
    return Place(s3_server, s3, tmp_path)


def _client(endpoint: str) -> S3Client:
    return S3Client("models", lambda: S3Credentials(*NOBODY, endpoint=endpoint))


def _crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


def _part(number: int) -> bytes:
    return _LARGE[(number - 1) * PART : number * PART]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---- what is sent


def test_files_are_there_as_they_are_here(place: Place) -> None:
    contents = {"a/ü +%.json": _SMALL, "model/w 1.safetensors": _LARGE, "empty": b"", "exact.bin": _LARGE[: 2 * PART]}
    sent = place.send(*(place.file(path, content) for path, content in contents.items()))
    assert {path: place.content(path) for path in place.objects} == contents
    assert sent.digests == {path: _sha256(content) for path, content in contents.items()}
    total = sum(map(len, contents.values()))
    assert (sent.sent, sent.read, sent.written, place.ticked) == (total, total, 0, total)
    assert place.proxy.received("PUT") == total
    assert place.uploads == []


def test_a_known_digest_is_not_computed(place: Place) -> None:
    sent = place.send(place.file("w", _LARGE, sha256="known"), place.file("s", _SMALL, sha256="known"))
    assert sent.digests == {}
    assert (place.content("w"), place.content("s")) == (_LARGE, _SMALL)


def test_nothing_to_send_is_nothing(place: Place) -> None:
    assert place.send() == Sent()
    assert place.proxy.matching("PUT|POST") == []


def test_every_body_comes_with_its_checksum_and_is_not_hashed_for_the_signature(place: Place) -> None:
    place.send(place.file("w"), place.file("s", _SMALL))
    bodies = {request.query.get("partNumber", "s"): request.headers for request in place.proxy.matching("PUT")}
    expected = {"s": _crc32(_SMALL)} | {str(n): _crc32(_part(n)) for n in range(1, 5)}
    assert {n: headers["x-amz-checksum-crc32"] for n, headers in bodies.items()} == expected
    assert {headers["X-Amz-Content-SHA256"] for headers in bodies.values()} == {"UNSIGNED-PAYLOAD"}
    told = place.server.client().head_object(
        Bucket=place.server.bucket, Key=f"{place.prefix}/w", ChecksumMode="ENABLED"
    )
    assert told["ChecksumCRC32"].endswith("-4")


def test_encryption_goes_with_each_new_object(place: Place) -> None:
    place.send(place.file("w"), place.file("s", _SMALL), upload_args={"ServerSideEncryption": "AES256"})
    begun = place.proxy.matching(r"/s$|POST .*\?uploads")
    assert len([r for r in begun if r.headers.get("x-amz-server-side-encryption") == "AES256"]) == 2


def test_session_tokens_are_sent(place: Place) -> None:
    place.proxy.tokens.add(SESSIONS[0])
    place.send(place.file("w"), session_token=SESSIONS[0])
    assert {request.token for request in place.proxy.requests} == {SESSIONS[0]}
    assert place.content("w") == _LARGE


@given(st.integers(0, 5 << 40))
def test_a_file_is_cut_as_s3_demands(size: int) -> None:
    parts = spans(size)
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert len(parts) <= 10_000
    assert all(5 << 20 <= part.size <= 5 << 30 for part in parts[:-1])
    assert [part.start for part in parts] == [sum(p.size for p in parts[:n]) for n in range(min(len(parts), 3))] + [
        part.start for part in parts[3:]
    ]
    assert sum(part.size for part in parts) == size
    assert parts[-1].start + parts[-1].size == size


def test_a_window_is_the_part_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(_SMALL)
    source, stopped = Source(tmp_path / "f", len(_SMALL)), threading.Event()
    with source.opened() as stream:
        window = Window(source, stream, Span(2, 1000, 5000), stopped)
        assert len(window) == 5000
        assert b"".join(iter(lambda: window.read(999), b"")) == _SMALL[1000:6000]
        assert (window.tell(), window.seek(-10, os.SEEK_END), window.read()) == (5000, 4990, _SMALL[5990:6000])
        assert (window.seek(0), window.read()) == (0, _SMALL[1000:6000])
        stopped.set()
        window.seek(0)
        with pytest.raises(Stopped):
            window.read(1)
        assert isinstance(window.failure, Stopped)  # the HTTP client wraps what it caught


# ---- listing, reading, removing


def test_the_listing_goes_through_all_pages_and_stays_below_the_location(place: Place) -> None:
    for n in range(1001):
        object_ = place.server.path(f"{place.prefix}/many/{n}")
        object_.parent.mkdir(parents=True, exist_ok=True)
        object_.write_bytes(b"x" * (n % 3))
    place.server.path(f"{place.prefix}-other").write_bytes(b"x")
    assert place.storage().listing() == {f"many/{n}": n % 3 for n in range(1001)}
    assert len(place.proxy.requests) == 2


def test_read_and_remove(place: Place) -> None:
    place.send(place.file("a b", b"1"), place.file("c", b"2"), place.file("d", b"3"))
    storage = place.storage()
    assert storage.read("a b") == b"1"
    storage.remove(["a b", "c", "never there"])
    assert storage.listing() == {"d": 1}
    with pytest.raises(Refused, match=r"404.*c") as caught:
        storage.read("c")
    assert caught.value.status == 404


def test_an_answer_that_breaks_off_is_asked_for_again(place: Place) -> None:
    place.send(place.file("a", _SMALL))
    place.proxy.reset("GET .*/a$", "amid")
    assert place.storage().read("a") == _SMALL
    assert len(place.proxy.matching("GET .*/a$")) == 2


# ---- what is there already


def test_what_is_there_is_not_sent_again(place: Place) -> None:
    files = [place.file("w"), place.file("s", _SMALL)]
    first = place.send(*files)
    place.proxy.forget()
    place.ticked = 0
    again = place.send(*files)
    assert (again.sent, again.digests) == (0, first.digests)
    assert place.ticked == len(_LARGE) + len(_SMALL)
    assert place.proxy.matching("PUT|POST|DELETE") == []


def test_wrong_bytes_of_the_right_size_are_replaced(place: Place) -> None:
    place.send(place.file("w"), place.file("s", _SMALL))
    place.proxy.forget()
    place.ticked = 0
    other, small = _LARGE[:-1] + bytes([_LARGE[-1] ^ 1]), bytes(len(_SMALL))
    sent = place.send(place.file("w", other), place.file("s", small))
    assert (place.content("w"), place.content("s")) == (other, small)
    assert sent.digests == {"w": _sha256(other), "s": _sha256(small)}
    assert sent.sent == place.ticked == len(other) + len(small)


def test_another_size_is_replaced_unread(place: Place) -> None:
    place.send(place.file("s", b"old"))
    place.send(place.file("s", _SMALL))
    assert place.content("s") == _SMALL
    assert place.proxy.matching("HEAD") == []


def test_where_the_store_has_no_crc32_the_etag_tells(place: Place) -> None:
    client = place.server.client()
    client.put_object(Bucket=place.server.bucket, Key=f"{place.prefix}/s", Body=_SMALL, ChecksumAlgorithm="SHA256")
    upload = place.begun({n: _part(n) for n in range(1, 5)})
    parts = client.list_parts(**place.at, UploadId=upload)["Parts"]
    assert "ChecksumCRC32" not in parts[0]
    told = {"Parts": [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]}
    client.complete_multipart_upload(**place.at, UploadId=upload, MultipartUpload=told)
    files = [place.file("s", _SMALL), place.file("f")]
    assert place.send(*files).sent == 0
    assert place.send(place.file("s", bytes(len(_SMALL))), place.file("f", bytes(len(_LARGE)))).sent > 0
    assert place.content("f") == bytes(len(_LARGE))


def test_an_object_without_any_checksum_is_replaced(place: Place) -> None:
    place.server.path(place.prefix).mkdir(parents=True)
    place.server.path(f"{place.prefix}/s").write_bytes(_SMALL)
    assert place.send(place.file("s", _SMALL)).sent == len(_SMALL)


def test_an_unfinished_upload_is_gone_on_with(place: Place) -> None:
    upload = place.begun({1: _part(1), 2: b"?" * PART, 3: _part(3)[:-1]}, ChecksumAlgorithm="CRC32")
    sent = place.send(place.file("f"))
    assert place.content("f") == _LARGE
    assert sent.sent == place.proxy.received("PUT") == len(_LARGE) - PART
    assert sent.digests == {"f": _sha256(_LARGE)}
    assert place.ticked == len(_LARGE)
    assert {request.query.get("uploadId") for request in place.proxy.matching("PUT|POST")} == {upload}
    assert place.uploads == []


def test_parts_without_crc32_are_told_by_their_etag(place: Place) -> None:
    place.begun({1: _part(1), 2: b"?" * PART, 3: _part(3)})
    sent = place.send(place.file("f"))
    assert sent.sent == len(_LARGE) - 2 * PART
    assert place.content("f") == _LARGE


def test_the_newest_unfinished_upload_is_taken_and_the_others_are_aborted(place: Place) -> None:
    parts = {1: {1: _part(1), 2: _part(2)}, 2: {1: _part(1), 2: _part(2), 3: _part(3)}, 3: {1: _part(1)}}
    uploads = {age: place.begun(parts[age], ChecksumAlgorithm="CRC32") for age in (3, 2, 1)}
    for age, upload in uploads.items():
        folder = next(place.server.path("").rglob(upload))
        os.utime(folder, (10**9 - 1000 * age, 10**9 - 1000 * age))  # whence the server has the time of its beginning
    assert place.send(place.file("f")).sent == len(_LARGE) - 2 * PART
    assert {r.query["uploadId"] for r in place.proxy.matching("DELETE")} == {uploads[3], uploads[2]}
    assert place.uploads == []


def test_parts_are_listed_through_all_pages(place: Place) -> None:
    upload = place.begun(dict.fromkeys(range(1, 1002), b"x"))
    unfinished = Unfinished(S3Client(place.server.bucket, place.hand_out), f"{place.prefix}/", [place.at["Key"]])
    unfinished.find()
    found = unfinished.take_over(place.at["Key"])
    assert found
    assert (found.id, list(found.parts)) == (upload, list(range(1, 1002)))
    assert len(place.proxy.matching("GET .*uploadId=")) == 2


def test_uploads_are_listed_through_all_pages() -> None:
    """By scripted answers: versitygw 1.8 takes no marker of an upload."""
    more = "<IsTruncated>true</IsTruncated><NextKeyMarker>m/a</NextKeyMarker><NextUploadIdMarker>1</NextUploadIdMarker>"
    upload = "<Upload><Key>m/{}</Key><UploadId>{}</UploadId><Initiated>2026-01-0{}T00:00:00Z</Initiated></Upload>"
    pages = [f"{more}{upload.format('a', 1, 1)}", f"<IsTruncated>false</IsTruncated>{upload.format('a', 2, 2)}"]
    parts = "<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>"
    answers = [answer(200, f"<ListMultipartUploadsResult>{page}</ListMultipartUploadsResult>") for page in pages]
    with Answering(*answers, answer(200, parts)) as server:
        unfinished = Unfinished(_client(server.url), "m/", ["m/a"])
        unfinished.find()
        assert unfinished.take_over("m/a") == Upload("2", checksummed=False)
        assert "key-marker=m%2Fa&upload-id-marker=1" in server.asked[1].path


def test_uploads_of_other_keys_are_left_alone(place: Place) -> None:
    client = place.server.client()
    others = [f"{place.prefix}/f2", f"{place.prefix}2/f"]
    for key in others:
        client.create_multipart_upload(Bucket=place.server.bucket, Key=key)
    place.send(place.file("f"))
    assert sorted(place.uploads) == sorted(others)


def test_where_uploads_may_not_be_listed_files_are_sent_all_the_same(place: Place) -> None:
    place.begun({1: _part(1)}, ChecksumAlgorithm="CRC32")
    place.proxy.fail(r"GET .*\?.*uploads", 403, "AccessDenied", times=9)
    assert place.send(place.file("f")).sent == len(_LARGE)
    assert place.content("f") == _LARGE


# ---- interruptions


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        (r"POST .*\?uploads", 1),
        (r"PUT .*partNumber=", 1),
        (r"PUT .*partNumber=", 5),
        (r"PUT .*/small", 1),
        (r"POST .*uploadId=", 1),
        (r"POST .*uploadId=", 2),
    ],
)
def test_a_killed_run_is_gone_on_with(place: Place, moment: str, count: int) -> None:
    contents = {"a/f": _LARGE, "small": _SMALL, "z/f": _LARGE[::-1]}
    files = [place.file(path, content) for path, content in contents.items()]
    with S3Proxy(place.server) as first:  # its end is the end of all that was under way
        child: list[subprocess.Popen[bytes]] = []
        started, lock, seen = threading.Event(), threading.Lock(), 0

        def kill(request: Request) -> None:
            nonlocal seen
            started.wait(60)
            with lock:
                if _matches(moment, request):
                    seen += 1
                    if seen == count:
                        child[0].kill()
                        child[0].wait()

        first.on_request = kill
        child.append(_child(place, first, files))
        started.set()
        assert child[0].wait(120) == -signal.SIGKILL
    kept = _kept(place)
    total = sum(map(len, contents.values()))
    sent = place.send(*files)
    assert sent.sent == place.proxy.received("PUT") == total - kept
    assert {path: place.content(path) for path in place.objects} == contents
    assert sent.digests == {path: _sha256(content) for path, content in contents.items()}
    assert place.ticked == total
    assert place.uploads == []


def _child(place: Place, proxy: S3Proxy, files: list[Sending], **options: Any) -> subprocess.Popen[bytes]:
    """Another process that sends the files."""
    told = [place.location, proxy.endpoint, place.server.access_key, place.server.secret_key]
    sources = {file.path: str(file.source) for file in files}
    return subprocess.Popen([sys.executable, "-c", _CHILD, json.dumps([*told, sources])], **options)


def _matches(pattern: str, request: Request) -> bool:
    return re.search(pattern, request.line) is not None


def _kept(place: Place) -> int:
    """Bytes of finished objects and of finished parts."""
    client, kept = place.server.client(), sum(place.objects.values())
    uploads = client.list_multipart_uploads(Bucket=place.server.bucket, Prefix=place.prefix).get("Uploads", [])
    for upload in uploads:
        at = {"Bucket": place.server.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
        kept += sum(part["Size"] for part in client.list_parts(**at).get("Parts", []))
    return kept


@pytest.mark.parametrize(
    ("order", "pattern"),
    [
        ("status", "PUT .*partNumber=2"),
        ("status", "PUT .*/s$"),
        ("status", r"POST .*\?uploads"),
        ("status", "POST .*uploadId="),
        ("status", "GET"),
        ("before", "PUT .*partNumber=2"),
        ("amid", "PUT .*partNumber=2"),
        ("after", "PUT .*partNumber=2"),
        ("after", "PUT .*/s$"),
        ("after", r"POST .*\?uploads"),
        ("after", "POST .*uploadId="),
        ("after", "GET"),
        ("page", "GET"),
        ("page", "PUT .*partNumber=2"),
        ("page", "PUT .*/s$"),
        ("page", r"POST .*\?uploads"),
        ("page", "POST .*uploadId="),
        ("stall", "PUT .*partNumber=2"),
        ("stall", "POST .*uploadId="),
    ],
)
def test_what_passes_is_waited_for(place: Place, order: Any, pattern: str) -> None:
    if order == "status":
        place.proxy.fail(pattern, 503, "SlowDown", retry_after="0")
    elif order == "stall":
        place.proxy.stall(pattern)
    elif order == "page":
        place.proxy.page(pattern)
    else:
        place.proxy.reset(pattern, order)
    place.send(place.file("f"), place.file("s", _SMALL), timeout=0.5 if order == "stall" else 60)
    assert (place.content("f"), place.content("s")) == (_LARGE, _SMALL)
    assert place.ticked == len(_LARGE) + len(_SMALL)
    assert place.uploads == []
    assert len(place.proxy.matching(pattern)) >= 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (408, "x"),
        (429, "x"),
        (500, "InternalError"),
        (502, "x"),
        (504, "x"),
        (400, "RequestTimeout"),
        (400, "BadDigest"),
    ],
)
def test_every_passing_error_is_one(place: Place, status: int, code: str) -> None:
    place.proxy.fail("PUT", status, code, retry_after="0")
    place.send(place.file("s", _SMALL))
    assert [request.status for request in place.proxy.matching("PUT")] == [status, 200]


def test_a_completion_whose_answer_was_lost_is_no_loss(place: Place) -> None:
    place.proxy.reset("POST .*uploadId=", "after")
    place.proxy.fail("POST .*uploadId=", 404, "NoSuchUpload")  # as some stores answer the second time
    place.send(place.file("f"))
    assert place.content("f") == _LARGE
    assert place.proxy.received("PUT") == len(_LARGE)


def test_an_upload_that_somebody_ended_is_told(place: Place) -> None:
    place.proxy.fail("POST .*uploadId=", 404, "NoSuchUpload")
    with pytest.raises(Refused, match="404"):
        place.send(place.file("f"))


def test_patience_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "0.01")
    place.proxy.fail("PUT", 503, "SlowDown", times=99)
    with pytest.raises(NetworkUnreachable, match=r"503 SlowDown.*again and again"):
        place.send(place.file("s", _SMALL))
    assert len(place.proxy.matching("PUT")) == 1


def test_what_the_server_asks_to_wait_for_is_obeyed(place: Place) -> None:
    place.proxy.fail("PUT", 503, "SlowDown", retry_after="3600")  # longer than patience lasts
    with pytest.raises(NetworkUnreachable):
        place.send(place.file("s", _SMALL))
    assert len(place.proxy.matching("PUT")) == 1


def test_a_server_that_is_not_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "0.01")
    with S3Proxy(place.server) as gone:
        endpoint = gone.endpoint
    with pytest.raises(NetworkUnreachable, match="cannot be reached"):
        place.send(place.file("s", _SMALL), endpoint=endpoint)


@pytest.mark.parametrize("broken", ["<ListBucketResult><IsTruncated>fal", "", "no XML at all"])
def test_a_broken_answer_is_asked_for_again(broken: str) -> None:
    whole = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    with Answering(answer(200, broken), answer(200, whole)) as server:
        storage = S3Storage("s3://models/m", lambda: S3Credentials(*NOBODY, endpoint=server.url))
        assert storage.listing() == {}
        assert len(server.asked) == 2


def test_a_certificate_that_does_not_verify_is_final(tmp_path: Path) -> None:
    with Answering(answer(200), tls=certificate(tmp_path)[0]) as server:
        storage = S3Storage("s3://models/m", lambda: S3Credentials(*NOBODY, endpoint=server.url))
        with pytest.raises(NetworkUnreachable, match=r"certificate of .* does not verify"):
            storage.listing()


# ---- refusals


@pytest.mark.parametrize("pattern", ["GET", "PUT", r"POST .*\?uploads", "HEAD"])
def test_what_is_forbidden_is_final_at_once(place: Place, pattern: str) -> None:
    if pattern == "HEAD":
        place.send(place.file("s", _SMALL))
    place.proxy.fail(pattern, 403, "AccessDenied", times=9)
    with pytest.raises(AccessDenied, match="403") as caught:
        place.send(place.file("s", _SMALL), place.file("f"))
    _tells_no_secret(place, caught.value)
    assert len(place.proxy.matching(f"{pattern}.*/s")) <= 1


def test_wrong_keys(place: Place) -> None:
    with pytest.raises(AccessDenied, match="SignatureDoesNotMatch") as caught:
        place.send(place.file("s", _SMALL), secret_key=secret("not the right one", "secret key"))
    _tells_no_secret(place, caught.value)


@pytest.mark.parametrize(
    ("status", "code"), [(507, "InsufficientStorage"), (507, "x"), (403, "QuotaExceeded"), (400, "XMinioStorageFull")]
)
def test_a_full_storage_is_told_and_not_tried_again(place: Place, status: int, code: str) -> None:
    place.proxy.fail("PUT", status, code, times=9)
    with pytest.raises(RegistryError, match="storage is full"):
        place.send(place.file("s", _SMALL))
    assert len(place.proxy.matching("PUT")) == 1


def test_a_store_that_cannot_is_not_tried_again(place: Place) -> None:
    place.proxy.fail("PUT", 501, "NotImplemented", times=9)
    with pytest.raises(Refused, match="501"):
        place.send(place.file("s", _SMALL))
    assert len(place.proxy.matching("PUT")) == 1


def test_a_bucket_that_is_not_there(place: Place) -> None:
    place.location = "s3://no-such-bucket/m"
    with pytest.raises(RegistryError, match='no bucket "no-such-bucket"'):
        place.storage().listing()


def test_the_first_failure_ends_the_work_whatever_hangs(place: Place) -> None:
    hanging = threading.Event()
    place.proxy.stall("PUT .*partNumber=1")
    place.proxy.fail("PUT .*partNumber=3", 403, "AccessDenied")

    def until_it_hangs(request: Request) -> None:
        if request.query.get("partNumber") == "1":
            hanging.set()
        if request.query.get("partNumber") == "3":
            hanging.wait(60)

    place.proxy.on_request = until_it_hangs
    with pytest.raises(AccessDenied):
        place.send(place.file("f"), timeout=100_000)
    assert [request.status for request in place.proxy.matching("partNumber=1")] == [None]
    hanging.clear()
    place.proxy.stall("PUT .*partNumber=1")
    place.proxy.fail("PUT .*partNumber=3", 403, "AccessDenied")
    child = _child(place, place.proxy, [place.file("f")], stderr=subprocess.PIPE)
    assert b"AccessDenied" in child.communicate(timeout=100)[1]
    assert place.uploads == [f"{place.prefix}/f"]  # for the next run
    place.proxy.on_request = None
    place.send(place.file("f"))
    assert place.content("f") == _LARGE


def test_a_failing_tick_ends_the_work(place: Place) -> None:
    def failing(_: int) -> None:
        raise KeyboardInterrupt

    tick: Tick = failing
    with pytest.raises(KeyboardInterrupt):
        place.storage().send([place.file("f")], tick)


@pytest.mark.parametrize("location", ["/local", "https://host/x", "s3://", "s3:///x"])
def test_a_location_that_is_none(location: str) -> None:
    with pytest.raises(UsageError, match="no place in S3"):
        S3Storage(location, lambda: S3Credentials(*NOBODY))


def test_an_endpoint_that_is_none(place: Place) -> None:
    with pytest.raises(UsageError, match="No requests to S3"):
        place.storage(endpoint="nonsense").listing()


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(UsageError, match=r"pip install 'catalogger\[s3\]'"):
        S3Storage("s3://bucket/x", lambda: S3Credentials(*NOBODY))


def test_credentials_do_not_show_their_secrets() -> None:
    shown = repr(S3Credentials(*NOBODY, SESSIONS[0], upload_args={"SSECustomerKey": secret("encryption")}))
    assert MARK not in shown.lower()


def _tells_no_secret(place: Place, error: CataloggerError) -> None:
    told = f"{error} {error.__cause__} {error.document()}"
    for credentials in place.asked:
        assert credentials.secret_key not in told
        assert not credentials.session_token or credentials.session_token not in told


# ---- credentials that expire


def _sessions(place: Place) -> S3Storage:
    """A storage whose credentials have another session token each time."""
    return S3Storage(place.location, lambda: place.hand_out(session_token=SESSIONS[len(place.asked)]))


def test_expired_credentials_are_asked_anew_once_for_all(place: Place) -> None:
    place.proxy.tokens |= set(SESSIONS[:2])

    def expire(request: Request) -> None:
        if request.query.get("partNumber") == "4":
            place.proxy.expired.add(SESSIONS[0])

    place.proxy.on_request = expire
    files = [place.file("f"), place.file("g", _LARGE[::-1])]
    _sessions(place).send(files, place.tick)
    assert (place.content("f"), place.content("g")) == (_LARGE, _LARGE[::-1])
    assert len(place.asked) == 2
    assert place.ticked == 2 * len(_LARGE)
    assert {request.token for request in place.proxy.matching("PUT")} == set(SESSIONS[:2])


def test_an_expiry_is_seen_in_an_answer_without_a_body(place: Place) -> None:
    place.proxy.tokens |= set(SESSIONS[:2])
    place.send(place.file("s", _SMALL), session_token=SESSIONS[0])
    place.asked.clear()

    def expire(request: Request) -> None:
        if request.method == "HEAD":
            place.proxy.expired.add(SESSIONS[0])

    place.proxy.on_request = expire
    assert _sessions(place).send([place.file("s", _SMALL)], place.tick).sent == 0
    assert len(place.asked) == 2


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidToken"])
def test_every_word_for_expired_is_known(place: Place, code: str) -> None:
    place.proxy.fail("PUT", 403 if code == "RequestExpired" else 400, code)
    place.send(place.file("s", _SMALL))
    assert len(place.asked) == 2


def test_credentials_that_are_always_expired_are_refused(place: Place) -> None:
    with pytest.raises(AccessDenied, match="just given") as caught:  # the server knows no such token
        _sessions(place).listing()
    assert len(place.asked) == 2
    _tells_no_secret(place, caught.value)


# ---- this machine's settings


def test_settings_of_this_machine_do_not_matter(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = place.folder / "config"
    broken.write_text("[profile x\nno configuration at all")
    for name, value in {
        "AWS_ACCESS_KEY_ID": secret("foreign", "access key"),
        "AWS_SECRET_ACCESS_KEY": secret("foreign", "secret key"),
        "AWS_SESSION_TOKEN": secret("foreign", "session"),
        "AWS_PROFILE": "foreign",
        "AWS_CONFIG_FILE": str(broken),
        "AWS_SHARED_CREDENTIALS_FILE": str(broken),
        "AWS_MAX_ATTEMPTS": "7",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    place.send(place.file("s", _SMALL))
    assert place.content("s") == _SMALL
    assert {request.token for request in place.proxy.requests} == {None}


@pytest.mark.parametrize("name", ["MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_the_endpoint_of_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, place.proxy.endpoint)
    place.send(place.file("s", _SMALL), endpoint=None)
    assert place.content("s") == _SMALL


def test_the_region_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server(region="eu-north-1") as server, S3Proxy(server) as proxy:
        place = Place(server, proxy, tmp_path)
        place.send(place.file("s", _SMALL), place.file("f"), region=None)
        assert (place.content("s"), place.content("f")) == (_SMALL, _LARGE)
        assert proxy.received("PUT") == len(_SMALL) + len(_LARGE)
        proxy.forget()
        monkeypatch.setenv("AWS_REGION", "eu-north-1")
        place.storage(region=None).listing()
        assert [request.status for request in proxy.requests] == [200]


# ---- files that change


def test_a_file_of_another_size_is_not_sent(place: Place) -> None:
    file = place.file("s", _SMALL)
    file.source.write_bytes(_SMALL[:-1])
    with pytest.raises(DiskError, match="99999 bytes now, 100000 were expected"):
        place.send(file)
    assert place.objects == {}


def test_a_file_that_is_gone(place: Place) -> None:
    file = place.file("s", _SMALL)
    file.source.unlink()
    with pytest.raises(DiskError, match=r"Cannot read.*No such file"):
        place.send(file)


@pytest.mark.parametrize("size", [PART, 2 * PART + 100])
def test_a_file_that_becomes_shorter_while_it_is_sent(place: Place, size: int) -> None:
    file = place.file("f", _LARGE[:size])
    place.proxy.on_request = lambda request: os.truncate(file.source, 1000) if request.method == "PUT" else None
    with pytest.raises(DiskError, match="changed while it was sent"):
        place.send(file)
    assert place.objects == {}


@pytest.mark.parametrize("last", [PART, 3 * PART + 100])
def test_bytes_that_change_between_checksum_and_sending_do_not_arrive(place: Place, last: int) -> None:
    file = place.file("f", _LARGE[:last])
    before = file.source.stat()

    def change(request: Request) -> None:
        if request.method == "PUT":
            with file.source.open("r+b") as stream:
                stream.seek(PART - 9)
                stream.write(b"123456789")
            os.utime(file.source, ns=(before.st_atime_ns, before.st_mtime_ns))

    place.proxy.on_request = change
    with pytest.raises(DiskError, match="changed while it was sent"):
        place.send(file)
    assert place.objects == {}


def test_a_file_that_changes_before_its_end_is_not_completed(place: Place) -> None:
    file = place.file("f")
    place.proxy.on_request = lambda request: os.utime(file.source) if request.query.get("partNumber") == "4" else None
    with pytest.raises(DiskError, match="changed while it was sent"):
        place.send(file)
    assert place.objects == {}
