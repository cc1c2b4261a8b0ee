"""The files of a model version in an S3 bucket, or in what speaks as S3 does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from catalogger.errors import UsageError
from catalogger.files.digests import Tick
from catalogger.remote.s3_client import TIMEOUT, S3Client, S3Credentials
from catalogger.remote.s3_sending import Outgoing, Sender
from catalogger.remote.s3_unfinished import Unfinished
from catalogger.remote.storage import Sending, Sent

__all__ = ["S3Credentials", "S3Storage"]


class S3Storage:
    """The objects below `s3://bucket/prefix`.  One `send` at a time.

    `credentials` gives the keys, and is asked again when they expire.  The endpoint is theirs, else that of
    MLFLOW_S3_ENDPOINT_URL, else that of AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else Amazon's.
    Unfinished uploads can be found again, and so be gone on with, where the credentials allow to list them.
    Raises UsageError where boto3 is not installed, or the location or an address is none.
    """

    def __init__(self, location: str, credentials: Callable[[], S3Credentials], *, timeout: float = TIMEOUT) -> None:
        url = urlsplit(location)
        if url.scheme != "s3" or not url.netloc:
            raise UsageError(f'"{location}" is no place in S3.', "Write s3://BUCKET/FOLDER.")
        self.location = location
        self._folder = f"{url.path.strip('/')}/".lstrip("/")
        self._client = S3Client(url.netloc, credentials, timeout)

    def listing(self) -> Mapping[str, int]:
        """Every object below the location, with its size in bytes."""
        found: dict[str, int] = {}
        more: dict[str, str] = {}
        while True:
            page = self._client.call("list_objects_v2", self.location, Prefix=self._folder, **more)
            found |= {entry["Key"].removeprefix(self._folder): entry["Size"] for entry in page.get("Contents", [])}
            if not page.get("IsTruncated"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        return {path: size for path, size in found.items() if path and not path.endswith("/")}

    def send(self, files: Sequence[Sending], tick: Tick) -> Sent:
        """Bring the files there; an object is taken over, and a part of it, where its CRC-32 (or MD5) is right."""
        there = {self._folder + path: size for path, size in self.listing().items()}
        outgoing = [Outgoing(file, self._folder + file.path) for file in files]
        return Sender(self._client, self._folder, outgoing, there, tick).run()

    def free(self) -> int | None:
        """None: the storage does not tell."""
        return None

    def read(self, path: str) -> bytes:
        """The content of one small object.  Raises Refused where there is none."""
        bucket, key = self._client.bucket, self._folder + path
        return bytes(self._client.do(lambda client: client.get_object(Bucket=bucket, Key=key)["Body"].read(), key))

    def part(self, path: str, start: int, count: int) -> bytes:
        """A range of one object.  Raises Refused where there is none."""
        key, span = self._folder + path, f"bytes={start}-{start + count - 1}"

        def ask(client: Any) -> bytes:
            return bytes(client.get_object(Bucket=self._client.bucket, Key=key, Range=span)["Body"].read())

        return self._client.do(ask, key)

    def unfinished(self) -> Mapping[str, int]:
        """The multipart uploads, where the credentials allow to list them."""
        found = Unfinished(self._client, self._folder).sizes()
        return {key.removeprefix(self._folder): size for key, size in found.items()}

    def abandon(self) -> None:
        """Abort them."""
        Unfinished(self._client, self._folder).remove()

    def remove(self, paths: Iterable[str]) -> None:
        """Delete these objects, one by one: not everything that speaks as S3 does can delete several at once."""
        for path in paths:
            self._client.call("delete_object", self._folder + path, Key=self._folder + path)
