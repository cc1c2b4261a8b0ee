"""How the Hub is asked: patiently, and with the errors of its client as ours.

HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are huggingface_hub's business; this room only asks it.
"""

from __future__ import annotations

import errno
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from catalogger.checkpoints.headers import GUESS
from catalogger.errors import AccessDenied, CheckpointError, DiskError, NetworkUnreachable, RepositoryNotFound

TIMEOUT = 30
"""Seconds without an answer; the client's own default waits for ever."""
_TRIES = 4
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
_PASSING = (429, 500, 502, 503, 504)


@contextmanager
def answer(url: str, headers: Mapping[str, str]) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The status and the body of a GET, block by block.  Raises what the client raises."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    session = get_session()
    if callable(getattr(session, "stream", None)):  # httpx, from huggingface_hub 1.0 on; of requests it is a setting
        asked = session.stream("GET", url, headers=dict(headers), timeout=TIMEOUT, follow_redirects=True)
    else:
        asked = session.get(url, headers=dict(headers), timeout=TIMEOUT, stream=True)
    with asked as response:
        hf_raise_for_status(response)
        blocks = response.iter_bytes() if hasattr(response, "iter_bytes") else response.iter_content(GUESS)
        yield response.status_code, blocks


def get(url: str, headers: Mapping[str, str], most: int) -> bytes:
    """At most so many bytes of the answer: a server that ignores ranges would else send the whole shard."""
    held = bytearray()
    with answer(url, headers) as (_, blocks):
        for block in blocks:
            held += block
            if len(held) >= most:
                break
    return bytes(held[:most])


def patiently(call: Callable[[], Any]) -> Any:
    """The call's result.  The client gives up at the first 503 or reset; a few more tries are cheap."""
    from huggingface_hub import errors

    for attempt in range(_TRIES):
        last = attempt == _TRIES - 1
        try:
            return call()
        except errors.HfHubHTTPError as error:
            if last or getattr(error.response, "status_code", None) not in _PASSING:
                raise
        except transport_errors() as error:
            refused = type(error).__name__ == "ConnectError"  # or no such host: that does not pass in seconds
            if last or refused:
                raise
        time.sleep(2**attempt * random.uniform(0.5, 1))  # noqa: S311  jitter, no secret
    raise AssertionError("the last try returns or raises")


@contextmanager
def translated(repo: str, revision: str | None) -> Iterator[None]:
    """Foreign errors of the Hub's client as ours, each with the sentence that helps."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo}"
    at = at_revision(repo, revision)
    try:
        yield
    except errors.GatedRepoError as error:
        status = getattr(error.response, "status_code", None)
        fix = f"Accept the licence at {page} with your account, then set HF_TOKEN to a token of that account."
        known = (
            " The token that was sent has no access." if status == 403 else " No token was sent, or it is not valid."
        )
        raise AccessDenied(f"The repository {at} is gated.{known}", fix) from error
    except errors.RevisionNotFoundError as error:
        raise RepositoryNotFound(
            repo, f'has no branch, tag or commit "{revision}"', f"See {page}/commits/main."
        ) from error
    except errors.RepositoryNotFoundError as error:
        fix = f"Look at the spelling: {page}\nA private repository: set HF_TOKEN to a token that may read it."
        raise RepositoryNotFound(repo, "does not exist on the Hub, or is private", fix) from error
    except errors.HFValidationError as error:
        raise RepositoryNotFound(repo, "is no repository id", "Write ORG/REPO or ORG/REPO@REVISION.") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise _unreachable(at, error) from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(
            repo, f"lost a file while it was read: {first_line(error)}", "Run the same command again."
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refused(at, error) from error
    except OSError as error:
        if error.errno in _DISK:
            raise DiskError(
                f'Cannot write to "{error.filename or constants.HF_HUB_CACHE}": {error.strerror}.',
                "HF_HOME names another folder.",
            ) from error
        raise _unreachable(at, error) from error
    except transport_errors() as error:
        raise _unreachable(at, error) from error


def at_revision(repo: str, revision: str | None) -> str:
    return f'"{repo}" at revision "{revision}"' if revision else f'"{repo}"'


def _unreachable(at: str, error: Exception) -> NetworkUnreachable:
    fix = (
        "Check the network, the proxy and HF_ENDPOINT, then run the same command again: it goes on where it stopped.\n"
    )
    return NetworkUnreachable(
        f"The Hub cannot be reached for {at}: {first_line(error)}",
        f"{fix}HF_HUB_OFFLINE=1 uses what is already in the cache.",
    )


def _refused(at: str, error: Any) -> AccessDenied | NetworkUnreachable:
    status = getattr(error.response, "status_code", 0)
    if status in (401, 403):
        return AccessDenied(f"The Hub refused access to {at} ({status}).", "Set HF_TOKEN to a token that may read it.")
    return NetworkUnreachable(f"The Hub answered {status} for {at}.", "Wait a little, then run the same command again.")


def transport_errors() -> tuple[type[Exception], ...]:
    """The base errors of whichever HTTP library this huggingface_hub uses."""
    known = (("httpx2", "TransportError"), ("httpx", "TransportError"), ("requests", "RequestException"))
    return tuple(getattr(sys.modules[module], name) for module, name in known if module in sys.modules)


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
