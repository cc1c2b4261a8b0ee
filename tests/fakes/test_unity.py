"""What a test can order of the loopback Unity Catalog, and what it sees of it, by plain HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from catalogger.testing.orders import Request
from fakes.secrets import secret
from fakes.unity import PREFIX, Unity

ANN = secret("Ann")
NAMES = {"catalog_name": "main", "schema_name": "ml"}
CREATE = rf"^POST {PREFIX}/models$"


@pytest.fixture
def unity(tmp_path: Path) -> Iterator[Unity]:
    with Unity((tmp_path / "root").as_uri()) as unity:
        unity.add_schema("main.ml")
        yield unity


def test_a_request_is_recorded(unity: Unity) -> None:
    answer = _create(unity, "q")
    (request,) = unity.requests
    assert (request.method, request.path, request.line) == ("POST", f"{PREFIX}/models", f"POST {PREFIX}/models")
    assert (request.user, request.status, request.document) == (None, 200, {"name": "q", **NAMES})
    assert request.received == int(answer.request.headers["Content-Length"])
    assert request.sent == len(answer.content)
    _ask(unity, "GET", "/models?catalog_name=main")
    assert [r.status for r in unity.matching(r"models\?catalog")] == [400]


def test_the_user_of_a_request_is_recorded() -> None:
    with Unity(None, tokens={ANN: "ann"}) as unity:
        requests.get(f"{unity.url}{PREFIX}/catalogs", headers={"Authorization": f"Bearer {ANN}"}, timeout=60)
        requests.get(
            f"{unity.url}{PREFIX}/catalogs", headers={"Authorization": f"Bearer {secret('nobody')}"}, timeout=60
        )
    assert [(r.user, r.status) for r in unity.requests] == [("ann", 200), (None, 401)]


def test_the_hook_sees_a_request_before_it_is_handled(unity: Unity) -> None:
    seen: list[tuple[Request, int]] = []
    unity.on_request = lambda request: seen.append((request, len(unity.rules.schema("main.ml").rows)))
    _create(unity, "q")
    ((request, models),) = seen
    assert (request.line, request.status, models) == (f"POST {PREFIX}/models", None, 0)


@pytest.mark.parametrize(("when", "again"), [("before", 200), ("after", 409)])
def test_an_ordered_refusal(unity: Unity, when: Any, again: int) -> None:
    unity.order.fail(CREATE, 503, headers={"Retry-After": "7"}, when=when, skip=1, times=2)
    assert _create(unity, "other").status_code == 200
    refused = _create(unity, "q")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "7")
    assert _create(unity, "q").status_code == 503
    assert _create(unity, "q").status_code == again


@pytest.mark.parametrize(("when", "again"), [("before", 200), ("after", 409)])
def test_an_ordered_reset(unity: Unity, when: Any, again: int) -> None:
    unity.order.reset(CREATE, when)
    with pytest.raises(requests.ConnectionError, match="reset"):
        _create(unity, "q")
    assert unity.requests[-1].status is None
    assert _create(unity, "q").status_code == again


@pytest.mark.parametrize(("when", "again"), [("before", 200), ("after", 409)])
def test_an_ordered_stall_lasts_until_the_server_stops(unity: Unity, when: Any, again: int) -> None:
    unity.order.stall(CREATE, when)
    assert isinstance(_stopped_at(unity, "q"), requests.ConnectionError)
    assert unity.requests[-1].status is None
    unity.start()
    assert _create(unity, "q").status_code == again


def test_an_ordered_truncation_is_of_a_right_answer(unity: Unity) -> None:
    unity.order.truncate(CREATE)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        _create(unity, "q")
    assert _create(unity, "q").status_code == 409


def test_an_ordered_login_page(unity: Unity) -> None:
    unity.order.login_page(CREATE)
    answer = _create(unity, "q")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert _create(unity, "q").status_code == 200


def test_an_ordered_wait_comes_before_the_right_answer(unity: Unity) -> None:
    unity.slow(CREATE, 60)
    assert isinstance(_stopped_at(unity, "q"), requests.ConnectionError)
    assert unity.requests[-1].status == 200
    unity.start()
    assert _ask(unity, "GET", "/models/main.ml.q").status_code == 200


def test_a_schema_vanishes_before_the_request_that_was_named(unity: Unity) -> None:
    unity.order.vanish("main.ml", CREATE, skip=1)
    assert _create(unity, "q").status_code == 200
    assert _create(unity, "r").json()["error_code"] == "SCHEMA_NOT_FOUND"
    unity.order.vanish("main", CREATE)
    assert _create(unity, "r").json()["error_code"] == "CATALOG_NOT_FOUND"


def test_a_restart_keeps_port_and_state(unity: Unity) -> None:
    _create(unity, "q")
    session = requests.Session()
    assert session.get(f"{unity.url}{PREFIX}/models/main.ml.q", timeout=60).status_code == 200
    unity.stop()
    with pytest.raises(requests.ConnectionError):
        _create(unity, "r")
    unity.start()
    assert session.get(f"{unity.url}{PREFIX}/models/main.ml.q", timeout=60).status_code == 200
    assert _create(unity, "q").status_code == 409


def test_a_stop_ends_creations_that_wait_for_others(unity: Unity) -> None:
    unity.duplicate(2, "model")
    _stopped_at(unity, "q")
    unity.start()
    assert _create(unity, "q").status_code == 409
    assert _create(unity, "r").status_code == 200


def test_as_many_creations_wait_for_each_other_as_were_ordered(unity: Unity) -> None:
    _create(unity, "q")
    unity.duplicate(2)
    unity.duplicate(3)
    body = {"model_name": "q", "source": "/s", **NAMES}
    for count in (2, 3):
        with ThreadPoolExecutor(count) as pool:
            calls = [pool.submit(_ask, unity, "POST", "/models/versions", body) for _ in range(count)]
            assert [call.result().status_code for call in calls] == [200] * count
    assert _ask(unity, "POST", "/models/versions", body).json()["version"] == 3
    assert [v["version"] for v in unity.versions("main.ml.q")] == [1, 1, 2, 2, 2, 3]


def test_rows_are_seen_and_forgotten_past_all_permissions() -> None:
    with Unity("s3://bucket/prefix", tokens={ANN: "ann"}) as unity:
        unity.add_schema("main.ml")
        unity.grant("ann", "USE CATALOG", "USE SCHEMA", "CREATE MODEL", on="main")
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {ANN}"
        session.post(f"{unity.url}{PREFIX}/models", json={"name": "q", **NAMES}, timeout=60)
        body = {"model_name": "q", "source": "/s", **NAMES}
        session.post(f"{unity.url}{PREFIX}/models/versions", json=body, timeout=60)
        assert [(v["version"], v["created_by"]) for v in unity.versions("main.ml.q")] == [(1, "ann")]
        unity.empty("main.ml")
        assert unity.versions("main.ml.q") == []


def _stopped_at(unity: Unity, name: str) -> BaseException | None:
    """What becomes of a creation whose server stops once it has come in."""
    arrived = threading.Event()
    unity.on_request = lambda _: arrived.set()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(_create, unity, name)
        assert arrived.wait(30)
        unity.stop()
        unity.on_request = None
        return call.exception()


def _create(unity: Unity, name: str, timeout: float = 60) -> requests.Response:
    return _ask(unity, "POST", "/models", {"name": name, **NAMES}, timeout)


def _ask(unity: Unity, method: str, path: str, body: Any = None, timeout: float = 60) -> requests.Response:
    return requests.request(method, f"{unity.url}{PREFIX}{path}", json=body, timeout=timeout)
