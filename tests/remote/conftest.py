"""A real S3 server for the module, and before it, for each test, a proxy that counts and disturbs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes.s3 import S3Proxy, S3Server


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(s3_server) as proxy:
        yield proxy
