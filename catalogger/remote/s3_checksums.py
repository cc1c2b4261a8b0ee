"""The checksums of parts and objects, as S3 tells them."""

from __future__ import annotations

import base64
import hashlib
import threading
import zlib
from collections.abc import Sequence
from io import FileIO
from typing import TYPE_CHECKING

from catalogger.remote.parts import Source, Span, blocks

if TYPE_CHECKING:
    from hashlib import _Hash as Hash


def crc32(source: Source, stream: FileIO, span: Span, stopped: threading.Event, digest: Hash | None = None) -> int:
    """The CRC-32 of a part; `digest`, where given, is fed with it too."""
    checksum = 0
    for block in blocks(source, stream, span, stopped):
        checksum = zlib.crc32(block, checksum)
        if digest:
            digest.update(block)
    return checksum


def md5(source: Source, stream: FileIO, span: Span, stopped: threading.Event) -> bytes:
    """The MD5 of a part, which is its ETag at most stores."""
    digest = hashlib.md5(usedforsecurity=False)
    for block in blocks(source, stream, span, stopped):
        digest.update(block)
    return digest.digest()


def encoded(checksum: int) -> str:
    """A CRC-32 as it stands in requests and answers."""
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


def whole_crc32(checksums: Sequence[int]) -> str:
    """What S3 tells as the checksum of an object of so many parts: that of the checksums, and their count."""
    if len(checksums) == 1:
        return encoded(checksums[0])
    return f"{encoded(zlib.crc32(b''.join(c.to_bytes(4, 'big') for c in checksums)))}-{len(checksums)}"


def whole_etag(digests: Sequence[bytes]) -> str:
    """The ETag of an object of so many parts, where the store makes it of MD5s."""
    if len(digests) == 1:
        return digests[0].hex()
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
