"""The S3 server and its proxy, held to what an unmodified boto3 sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from fakes.s3 import Request, S3Proxy, S3Server
from fakes.secrets import secret

_BYTES = os.urandom(3_000_000)
SESSION = secret("one", "session")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(server) as proxy:
        yield proxy


def _client(server: S3Server, proxy: S3Proxy, token: str | None = None, **options: Any) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=proxy.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        aws_session_token=token,
        region_name=server.region,
        config=Config(retries={"total_max_attempts": 1}, **options),
    )


def test_an_object_goes_through_the_proxy_and_back(server: S3Server, proxy: S3Proxy) -> None:
    client = _client(server, proxy)
    client.put_object(Bucket=server.bucket, Key="a b/ü+.bin", Body=_BYTES)
    assert server.objects["a b/ü+.bin"] == len(_BYTES)
    assert server.content("a b/ü+.bin") == _BYTES
    assert client.get_object(Bucket=server.bucket, Key="a b/ü+.bin")["Body"].read() == _BYTES
    put, get = proxy.requests
    assert (put.method, put.bucket, put.key, put.status) == ("PUT", server.bucket, "a b/ü+.bin", 200)
    assert put.received >= len(_BYTES)
    assert (get.method, get.sent) == ("GET", len(_BYTES))
    assert proxy.received("PUT") == put.received
    assert proxy.received("GET") == 0


def test_a_body_in_chunks_is_passed_on(server: S3Server, proxy: S3Proxy) -> None:
    address = _client(server, proxy).generate_presigned_url("put_object", {"Bucket": server.bucket, "Key": "chunked"})
    import requests

    blocks = iter([_BYTES[:1000], _BYTES[1000:]])
    answer = requests.put(address, data=blocks, timeout=30)
    assert proxy.requests[0].headers["Transfer-Encoding"] == "chunked"
    assert proxy.received() == len(_BYTES)
    assert proxy.requests[0].status == answer.status_code
    assert proxy.requests[0].seconds > 0


def test_unfinished_uploads_are_told(server: S3Server, proxy: S3Proxy) -> None:
    client = _client(server, proxy)
    upload = client.create_multipart_upload(Bucket=server.bucket, Key="open/one")["UploadId"]
    assert server.uploads == ["open/one"]
    assert "open/one" not in server.objects
    client.abort_multipart_upload(Bucket=server.bucket, Key="open/one", UploadId=upload)
    assert server.uploads == []


def test_an_object_of_many_parts_keeps_its_notes_elsewhere() -> None:
    with S3Server(many_parts=True) as server:
        upload = server.client().create_multipart_upload(Bucket=server.bucket, Key="big", ChecksumAlgorithm="CRC32")
        named = {"Bucket": server.bucket, "Key": "big", "UploadId": upload["UploadId"]}
        part = server.client().upload_part(**named, PartNumber=1, Body=_BYTES, ChecksumAlgorithm="CRC32")
        parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]
        server.client().complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
        assert server.content("big") == _BYTES
        assert os.listxattr(server.path("big")) == []


def test_the_server_verifies_checksums_and_signatures(server: S3Server, proxy: S3Proxy) -> None:
    with pytest.raises(ClientError, match="checksum"):
        _client(server, proxy).put_object(Bucket=server.bucket, Key="bad", Body=b"abc", ChecksumCRC32="AAAAAA==")
    stranger = S3Server()
    stranger.access_key = server.access_key
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        _client(stranger, proxy).list_objects_v2(Bucket=server.bucket)
    assert "bad" not in server.objects


def test_session_tokens_hold_until_they_expire(server: S3Server, proxy: S3Proxy) -> None:
    client = _client(server, proxy, SESSION)
    with pytest.raises(ClientError, match="InvalidToken"):
        client.put_object(Bucket=server.bucket, Key="t 1", Body=b"1")
    proxy.tokens.add(SESSION)
    client.put_object(Bucket=server.bucket, Key="t 1", Body=b"1")
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket=server.bucket, Prefix="t ")["Contents"]] == ["t 1"]
    client.create_multipart_upload(Bucket=server.bucket, Key="t 1")
    proxy.expired.add(SESSION)
    with pytest.raises(ClientError, match="ExpiredToken"):
        client.get_object(Bucket=server.bucket, Key="t 1")
    assert {request.token for request in proxy.requests} == {SESSION}
    for upload in server.client().list_multipart_uploads(Bucket=server.bucket)["Uploads"]:
        server.client().abort_multipart_upload(Bucket=server.bucket, Key="t 1", UploadId=upload["UploadId"])


def test_an_ordered_error_comes_with_its_code_as_often_as_ordered(server: S3Server, proxy: S3Proxy) -> None:
    client = _client(server, proxy)
    proxy.fail("PUT .*/e1", 503, "SlowDown", times=2, skip=1, retry_after="7")
    client.put_object(Bucket=server.bucket, Key="e1", Body=b"1")
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            client.put_object(Bucket=server.bucket, Key="e1", Body=_BYTES)
        assert caught.value.response["Error"]["Code"] == "SlowDown"
        assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    client.put_object(Bucket=server.bucket, Key="e1", Body=b"22")
    assert [request.status for request in proxy.requests] == [200, 503, 503, 200]
    assert server.content("e1") == b"22"


@pytest.mark.parametrize(("when", "there"), [("before", False), ("amid", False), ("after", True)])
def test_a_reset_says_nothing_of_what_was_done(server: S3Server, proxy: S3Proxy, when: Any, there: bool) -> None:
    proxy.reset("PUT", when)
    with pytest.raises(ConnectionClosedError):
        _client(server, proxy).put_object(Bucket=server.bucket, Key=f"r-{when}", Body=_BYTES)
    assert (f"r-{when}" in server.objects) is there
    assert proxy.requests[0].status is None
    assert (proxy.received() >= len(_BYTES)) is there


def test_an_answer_is_cut_amid_its_body(server: S3Server, proxy: S3Proxy) -> None:
    client = _client(server, proxy)
    client.put_object(Bucket=server.bucket, Key="cut", Body=_BYTES)
    proxy.reset("GET", "amid")
    with pytest.raises(Exception, match="Connection"):
        client.get_object(Bucket=server.bucket, Key="cut")["Body"].read()
    assert 0 < proxy.matching("GET")[0].sent < len(_BYTES)


def test_a_stalled_request_ends_with_the_clients_patience(server: S3Server, proxy: S3Proxy) -> None:
    proxy.stall("PUT")
    with pytest.raises(ReadTimeoutError):
        _client(server, proxy, read_timeout=0.3).put_object(Bucket=server.bucket, Key="s", Body=b"1")
    assert "s" not in server.objects


def test_a_web_page_comes_in_place_of_the_answer(server: S3Server, proxy: S3Proxy) -> None:
    proxy.page("PUT")
    answer = _client(server, proxy).put_object(Bucket=server.bucket, Key="p", Body=b"1")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert "p" not in server.objects


def test_the_hook_may_kill_a_client(server: S3Server, proxy: S3Proxy) -> None:
    script = (
        "import os, boto3\nclient = boto3.client('s3', endpoint_url=os.environ['AT'], region_name='us-east-1')\n"
        "for n in range(9): client.put_object(Bucket='models', Key=f'k{n}', Body=b'x')"
    )
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key, "AT": proxy.endpoint}
    child: list[subprocess.Popen[bytes]] = []

    def kill(request: Request) -> None:
        if request.key == "k3":
            child[0].kill()
            child[0].wait()

    proxy.on_request = kill
    child.append(subprocess.Popen([sys.executable, "-c", script], env=os.environ | keys))
    assert child[0].wait(60) == -signal.SIGKILL
    assert [request.key for request in proxy.requests] == ["k0", "k1", "k2", "k3"]
