"""The throttle by a clock that only its own sleeps move, and the servers that use it."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi

from fakes.hub import Hub
from fakes.s3 import S3Proxy, S3Server
from fakes.throttle import Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def throttle(self, rate: float) -> Throttle:
        return Throttle(rate, lambda: self.now, self.sleep)


def test_bytes_take_their_time() -> None:
    clock = Clock()
    throttle = clock.throttle(100)
    for _ in range(10):
        throttle.take(50)
    assert clock.now == pytest.approx(5)


def test_an_idle_line_saves_little_up() -> None:
    clock = Clock()
    throttle = clock.throttle(100)
    clock.now = 1000
    throttle.take(500)
    assert clock.now == pytest.approx(1000 + 5 - 0.2)


def test_the_hub_sends_no_faster(tmp_path: Path) -> None:
    clock, weights = Clock(), bytes(3 << 20)
    with Hub() as hub:
        hub.add("org/one", {"model.safetensors": weights})
        hub.throttle = clock.throttle(1 << 20)
        HfApi(endpoint=hub.url, token=False).hf_hub_download("org/one", "model.safetensors", cache_dir=tmp_path)
    assert clock.now == pytest.approx(3)


def test_the_proxy_receives_no_faster() -> None:
    import boto3

    clock = Clock()
    with S3Server() as server, S3Proxy(server) as proxy:
        proxy.throttle = clock.throttle(1 << 20)
        client = boto3.client(
            "s3",
            endpoint_url=proxy.endpoint,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
        )
        client.put_object(Bucket=server.bucket, Key="one", Body=bytes(2 << 20))
    assert clock.now >= 2
