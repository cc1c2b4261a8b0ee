"""What a test can see and order of a loopback workspace: its record of requests, and faults."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from catalogger.testing.files_replies import Reply

LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"

When = Literal["before", "after"]


@dataclass(frozen=True)
class Request:
    """One request as it came: `received` and `sent` count body bytes, `status` is None where none was answered.

    `line` is what patterns are matched with: `GET /api/2.1/unity-catalog/models?max_results=1`. `document` is the JSON
    of the body, for requests that are answered by the workspace itself; `lineage` the header of that name.
    """

    method: str
    line: str
    path: str
    user: str | None
    lineage: str | None
    document: Mapping[str, Any] = field(repr=False)
    status: int | None = None
    received: int = 0
    sent: int = 0


@dataclass
class Fault:
    """`reply` is sent in place of the right answer; a reset, a stall or a truncated body concern the right one."""

    kind: Literal["reply", "reset", "stall", "truncate"]
    pattern: str
    times: int
    skip: int
    when: When = "before"
    reply: Reply | None = None


class Record:
    """Every request so far."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._lock = threading.Lock()

    def add(self, request: Request) -> int:
        with self._lock:
            self._requests.append(request)
            return len(self._requests) - 1

    def update(self, index: int, *, received: int = 0, sent: int = 0, status: int | None = None) -> None:
        with self._lock:
            was = self._requests[index]
            self._requests[index] = replace(
                was, received=was.received + received, sent=was.sent + sent, status=status or was.status
            )

    def all(self) -> tuple[Request, ...]:
        with self._lock:
            return tuple(self._requests)


class Orders:
    """Faults by a regular expression that a request's line must hold: the first `skip` of these requests are left
    alone, the next `times` are disturbed. `before` means that nothing is done, `after` that the answer is lost.
    """

    def __init__(self, vanish: Callable[[str], None]) -> None:
        self._vanish = vanish
        self._faults: list[Fault] = []
        self._vanishing: list[tuple[str, Fault]] = []
        self._lock = threading.Lock()

    def fail(
        self,
        pattern: str,
        status: int,
        *,
        code: str = "ORDERED_FAULT",
        headers: Mapping[str, str] | None = None,
        when: When = "before",
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """Answer with an error as Databricks writes it."""
        body = json.dumps({"error_code": code, "message": f"ordered fault {status}"}).encode()
        reply = _reply(status, "application/json", body, headers)
        self._add(Fault("reply", pattern, times, skip, when, reply))

    def login_page(self, pattern: str, status: int = 200, *, times: int = 1, skip: int = 0) -> None:
        """Answer with a web page."""
        reply = _reply(status, "text/html; charset=utf-8", LOGIN_PAGE)
        self._add(Fault("reply", pattern, times, skip, "before", reply))

    def reset(self, pattern: str, when: When = "before", *, times: int = 1, skip: int = 0) -> None:
        """Reset the connection."""
        self._add(Fault("reset", pattern, times, skip, when))

    def stall(self, pattern: str, when: When = "before", *, times: int = 1, skip: int = 0) -> None:
        """Never answer, until the client hangs up or the server is stopped."""
        self._add(Fault("stall", pattern, times, skip, when))

    def truncate(self, pattern: str, *, times: int = 1, skip: int = 0) -> None:
        """Do it, send the first half of the answer's body, and hang up."""
        self._add(Fault("truncate", pattern, times, skip, "after"))

    def vanish(self, name: str, pattern: str, *, skip: int = 0) -> None:
        """Drop the schema (or catalog) just before the first of these requests is handled."""
        with self._lock:
            self._vanishing.append((name, Fault("reset", pattern, 1, skip)))

    def take(self, line: str) -> Fault | None:
        """The fault for this request, used up by one; what has to vanish has vanished."""
        with self._lock:
            gone = [name for name, fault in self._vanishing if _fits(fault, line)]
            found = next((fault for fault in self._faults if _fits(fault, line)), None)
        for name in gone:
            self._vanish(name)
        return found

    def _add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)


def _fits(fault: Fault, line: str) -> bool:
    """Whether it is this request's turn; that counts it."""
    if not fault.times or not re.search(fault.pattern, line):
        return False
    if fault.skip:
        fault.skip -= 1
        return False
    fault.times -= 1
    return True


def _reply(status: int, kind: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}, body)
