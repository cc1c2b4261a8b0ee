"""Signature version 4 of a request as it came, made anew with other keys and without its session token."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlsplit

_AUTHORIZATION = re.compile(r"Credential=(?P<key>[^/]+)/(?P<scope>[^,]+),\s*SignedHeaders=(?P<signed>[^,]+),")
TOKEN = "x-amz-security-token"  # noqa: S105  the header's name


def resigned(
    method: str, target: str, headers: Sequence[tuple[str, str]], access_key: str, secret_key: str
) -> list[tuple[str, str]]:
    """The headers, signed for the same day, region and service.  `target` is the path and query as they were sent."""
    given = {name.lower(): value for name, value in headers}
    found = _AUTHORIZATION.search(given.get("authorization", ""))
    if found is None:
        raise ValueError("the request is not signed by a header")
    signed = [name for name in found["signed"].split(";") if name != TOKEN]
    url = urlsplit(target)
    query = "&".join(sorted(item if "=" in item else f"{item}=" for item in url.query.split("&") if item))
    lines = "".join(f"{name}:{' '.join(given[name].split())}\n" for name in signed)
    canonical = "\n".join([method, url.path, query, lines, ";".join(signed), given["x-amz-content-sha256"]])
    to_sign = (
        f"AWS4-HMAC-SHA256\n{given['x-amz-date']}\n{found['scope']}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    )
    key = f"AWS4{secret_key}".encode()
    for step in [*found["scope"].split("/"), to_sign]:
        key = hmac.digest(key, step.encode(), "sha256")
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{found['scope']}, "
        f"SignedHeaders={';'.join(signed)}, Signature={key.hex()}"
    )
    kept = [(name, value) for name, value in headers if name.lower() not in (TOKEN, "authorization")]
    return [*kept, ("Authorization", authorization)]


def out_of_query(target: str, headers: Sequence[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
    """A request that is signed in its query (a presigned address), with what it says of that as headers."""
    url = urlsplit(target)
    said = {key.lower(): value for key, value in parse_qsl(url.query)}
    if TOKEN not in said:
        return target, list(headers)
    query = "&".join(item for item in url.query.split("&") if not item.lower().startswith("x-amz-"))
    signed = f"SignedHeaders={said['x-amz-signedheaders']};x-amz-content-sha256;x-amz-date, Signature="
    more = [
        ("Authorization", f"AWS4-HMAC-SHA256 Credential={said['x-amz-credential']}, {signed}"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ("x-amz-date", said["x-amz-date"]),
        (TOKEN, said[TOKEN]),
    ]
    return f"{url.path}?{query}" if query else url.path, [*headers, *more]
