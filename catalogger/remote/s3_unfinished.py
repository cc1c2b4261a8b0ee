"""Multipart uploads that somebody began and nobody ended: found, taken over part by part, or taken away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from catalogger.errors import AccessDenied, Refused
from catalogger.remote.s3_client import S3Client

Told = Mapping[str, Any]
"""What S3 says of an upload or a part."""


@dataclass(frozen=True)
class Upload:
    """One multipart upload; `checksummed` says that its parts are named with their CRC-32 when it is completed."""

    id: str
    checksummed: bool
    parts: Mapping[int, Told] = field(default_factory=dict)


class Unfinished:
    """The unfinished uploads of these keys, all of which begin with `prefix`; where none are given, of every such."""

    def __init__(self, client: S3Client, prefix: str, keys: Iterable[str] | None = None) -> None:
        self._client, self._prefix = client, prefix
        self._keys = None if keys is None else frozenset(keys)
        self._found: Mapping[str, list[Told]] = {}

    def find(self) -> None:
        """Ask for them.  There are none where the credentials do not allow to ask, which some registries' do not."""
        found: dict[str, list[Told]] = defaultdict(list)
        try:
            for upload in self._all():
                if self._keys is None or upload["Key"] in self._keys:
                    found[upload["Key"]].append(upload)
        except AccessDenied:
            found.clear()
        self._found = found

    def take_over(self, key: str) -> Upload | None:
        """The newest upload of the key, with its parts by number."""
        if key not in self._found:
            return None
        newest = max(self._found[key], key=lambda upload: upload["Initiated"])
        try:
            return self._with_parts(key, newest["UploadId"])
        except Refused as refused:
            if refused.status != 404:
                raise
            return None

    def sizes(self) -> Mapping[str, int]:
        """Bytes in the parts of all that there are now, by key."""
        self.find()
        held: dict[str, int] = defaultdict(int)
        for key, uploads in self._found.items():
            for upload in uploads:
                with suppress(Refused):  # ended meanwhile
                    parts = self._with_parts(key, upload["UploadId"]).parts
                    held[key] += sum(int(part["Size"]) for part in parts.values())
        return held

    def remove(self) -> None:
        """Abort all that there are now: older ones, and one whose beginning was answered to nobody."""
        self.find()
        for key, uploads in self._found.items():
            for upload in uploads:
                self._abort(key, upload["UploadId"])

    def _all(self) -> Iterator[Told]:
        more: dict[str, Any] = {}
        while True:
            page = self._client.call("list_multipart_uploads", self._prefix, Prefix=self._prefix, **more)
            yield from page.get("Uploads", [])
            if not page.get("IsTruncated"):
                return
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _with_parts(self, key: str, upload: str) -> Upload:
        parts: dict[int, Told] = {}
        more: dict[str, Any] = {}
        while True:
            page = self._client.call("list_parts", key, Key=key, UploadId=upload, **more)
            parts |= {part["PartNumber"]: part for part in page.get("Parts", [])}
            if not page.get("IsTruncated"):
                return Upload(upload, page.get("ChecksumAlgorithm") == "CRC32", parts)
            more = {"PartNumberMarker": page["NextPartNumberMarker"]}

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._client.call("abort_multipart_upload", key, Key=key, UploadId=upload)
        except Refused as refused:
            if refused.status != 404:
                raise
