"""HTTP sessions that send large bodies in large blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from requests import Session

_BLOCK = 1 << 19  # bytes of a body that are in memory at a time; urllib3's own 16 KiB cost more time than the network


class Readable(Protocol):
    """A body that requests reads in blocks, and whose size in bytes it sends beforehand."""

    def __len__(self) -> int: ...

    def read(self, size: int = -1, /) -> bytes: ...


Body = Readable | bytes


def plain_session() -> Session:
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    for scheme in ("https://", "http://"):
        adapter = HTTPAdapter()
        adapter.poolmanager.connection_pool_kw["blocksize"] = _BLOCK
        session.mount(scheme, adapter)
    return session
