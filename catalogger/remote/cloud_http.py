"""HTTP to a cloud: sessions that are patient, and what a refusal means."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from catalogger.errors import (
    AccessDenied,
    CataloggerError,
    NetworkUnreachable,
    RegistryError,
    UsageError,
)
from catalogger.remote.patience import PASSING, TryAgain, asked_pause, patiently

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session


_CODE = re.compile(r'<Code>(\w+)</Code>|"(?:reason|error_code)":\s*"(\w+)"|ErrorCode:(\w+)')
_FULL = re.compile(r"storage_?quota|insufficient_?storage|no space", re.IGNORECASE)
_FIX_NETWORK = "Check the network, then run the same command again: what has arrived and can be verified is kept."


class _Patient:
    """Sends until there is an answer that will stay; stands in a session where requests' own adapter does."""

    def __init__(self, where: str) -> None:
        from requests.adapters import HTTPAdapter

        self._where, self._adapter = where, HTTPAdapter()

    def send(self, request: PreparedRequest, **settings: Any) -> Response:
        return patiently(lambda: answered(self._where, lambda: self._adapter.send(request, **settings)))

    def close(self) -> None:
        self._adapter.close()


def patient(session: Session, where: str) -> Session:
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Patient(where))  # type: ignore[arg-type]  # only these two methods are called
    return session


def answered(where: str, send: Callable[[], Response]) -> Response:
    """An answer that will stay.

    What was caught is left out of the error: its text holds the signed address.
    """
    from requests import exceptions

    try:
        response = send()
    except (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError) as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise TryAgain(unreachable(where)) from None
        raise NetworkUnreachable(
            f'The certificate of "{where}" does not verify.',
            "REQUESTS_CA_BUNDLE names the file of the authority that signed it.",
        ) from None
    if response.status_code in PASSING:
        failed = NetworkUnreachable(f'"{where}" answered {response.status_code} again and again.', _FIX_NETWORK)
        response.close()
        raise TryAgain(failed, asked_pause(response.headers.get("Retry-After")))
    return response


def unreachable(where: str) -> NetworkUnreachable:
    return NetworkUnreachable(f'"{where}" cannot be reached, or does not answer in time.', _FIX_NETWORK)


def refused(where: str, status: int | None, said: str) -> CataloggerError:
    """The error for an answer that will stay.  Of what was said only the code is told: the rest may hold secrets."""
    found = _CODE.search(said)
    code = next((group for group in found.groups() if group), "") if found else ""
    answered = f'"{where}" answered {f"{status} {code}".strip()}'
    if status == 507 or _FULL.search(said):
        return RegistryError(f"The storage is full: {answered}.", "Make room there, then run the same command again.")
    if status == 413 or "TooLarge" in code:
        return RegistryError(f"{answered}: the file is larger than it takes.", "Cut the weights: --max-shard-size 1GB.")
    if status in (401, 403):
        return AccessDenied(f"{answered}.", "Ask the owner of the catalog for the right to write to its storage.")
    return RegistryError(f"{answered}.", "Run the same command again; if it stays so, ask whoever keeps the storage.")


def missing(cloud: str) -> UsageError:
    return UsageError(
        f"The storage is {cloud}'s, whose client library is not installed.", "pip install 'catalogger[databricks]'"
    )
