"""Requests to one S3 bucket: with the credentials given and none of this machine's, patient, and with our errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from catalogger.errors import AccessDenied, CataloggerError, NetworkUnreachable, Refused, RegistryError, UsageError
from catalogger.remote.patience import PASSING, TryAgain, asked_pause, patiently

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

T = TypeVar("T")
TIMEOUT = 60.0  # seconds between two bytes of an answer
_CONNECT = 10.0  # seconds
_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidToken", "TokenRefreshRequired"}
)
_DAMAGED = frozenset({"BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest"})
_PASSING = _DAMAGED | {"RequestTimeout", "IncompleteBody", "OperationAborted", "SlowDown", "InternalError"}
_FULL = frozenset({"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded"})
_FULL_WORDS = ("no space left", "insufficient storage", "storage full", "quota exceeded")
_ALWAYS_TOLD = {
    "put_object": "ETag",
    "upload_part": "ETag",
    "create_multipart_upload": "UploadId",
    "complete_multipart_upload": "ETag",
    "list_objects_v2": "IsTruncated",
    "list_multipart_uploads": "IsTruncated",
    "list_parts": "IsTruncated",
}
_FIX_NETWORK = "Check the address and the network, then run the same command again."
_NO_FILE = (None, None, os.devnull, None)


@dataclass(frozen=True)
class S3Credentials:
    """Keys of one location.  `upload_args` go with every new object, as those of server-side encryption."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    region: str | None = None
    upload_args: Mapping[str, str] = field(default_factory=dict, repr=False)


class _Expired(Exception):
    """The credentials of this client are no longer taken."""


class S3Client:
    """Requests to `bucket`; `timeout` in seconds.  `credentials` is asked at first, and when those it gave expire."""

    def __init__(self, bucket: str, credentials: Callable[[], S3Credentials], timeout: float = TIMEOUT) -> None:
        self.bucket = bucket
        self._credentials, self._timeout = credentials, timeout
        self._session = _session()
        self._renewing = threading.Lock()
        self._given: tuple[Any, S3Credentials] | None = None

    @property
    def upload_args(self) -> Mapping[str, str]:
        return self._current()[1].upload_args

    def call(self, operation: str, about: str, **arguments: Any) -> Mapping[str, Any]:
        """One operation on the bucket.  Raises what `do` raises."""
        return self.do(lambda client: self.ask(client, operation, **arguments), about)

    def ask(self, client: Any, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """One operation within an action of `do`."""
        answer: Mapping[str, Any] = getattr(client, operation)(Bucket=self.bucket, **arguments)
        if _ALWAYS_TOLD.get(operation, "ResponseMetadata") not in answer:  # a login page may well be answered with 200
            raise self._broken()
        return answer

    def do(self, action: Callable[[Any], T], about: str) -> T:
        """What the action gives, called with a client of botocore, once more where credentials were renewed.

        `about` is the key, or what else was asked for.  Raises AccessDenied, NetworkUnreachable, RegistryError (Refused
        among them), and UsageError where the settings make no request.
        """
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        used: Any = None

        def attempt() -> T:
            nonlocal used
            used, _ = self._current()
            try:
                return action(used)
            except ClientError as error:
                if _is_expired(error):
                    raise _Expired from error
                raise self._answered(error, about) from error
            except BotoCoreError as error:
                raise self._unanswered(error) from error
            except ResponseParserError as error:
                raise self._broken() from error

        try:
            return patiently(attempt)
        except _Expired:
            self._renew(used)
        try:
            return patiently(attempt)
        except _Expired as error:
            raise AccessDenied(
                f'"{self._server}" says that the credentials are expired, and they were just given.',
                "Is the clock of this machine right?",
            ) from error.__cause__

    def _current(self) -> tuple[Any, S3Credentials]:
        with self._renewing:
            if self._given is None:
                self._given = self._made(self._credentials())
            return self._given

    def _renew(self, used: Any) -> None:
        """Ask anew, unless another thread has done so since."""
        with self._renewing:
            if self._given and self._given[0] is used:
                self._given = self._made(self._credentials())

    @property
    def _server(self) -> str:
        return str(self._current()[0].meta.endpoint_url)

    def _made(self, given: S3Credentials) -> tuple[Any, S3Credentials]:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        environ = os.environ
        config = Config(
            connect_timeout=_CONNECT,
            read_timeout=self._timeout,
            retries={"total_max_attempts": 1, "mode": "standard"},
            s3={"payload_signing_enabled": False},  # each body has its checksum among the signed headers
            tcp_keepalive=True,
        )
        try:
            client = self._session.create_client(
                "s3",
                # Where the bucket is in another region than the one signed for, botocore finds out and asks again.
                region_name=given.region
                or environ.get("AWS_REGION")
                or environ.get("AWS_DEFAULT_REGION")
                or "us-east-1",
                endpoint_url=given.endpoint or environ.get("MLFLOW_S3_ENDPOINT_URL") or None,
                aws_access_key_id=given.access_key,
                aws_secret_access_key=given.secret_key,
                aws_session_token=given.session_token,
                config=config,
            )
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"No requests to S3 can be made: {error}", "Check the endpoint and the region.") from error
        return client, given

    def _broken(self) -> TryAgain:
        return TryAgain(NetworkUnreachable(f'"{self._server}" does not answer as S3 does.', _FIX_NETWORK))

    def _answered(self, error: ClientError, about: str) -> CataloggerError | TryAgain:
        meta = error.response.get("ResponseMetadata", {})
        status = int(meta.get("HTTPStatusCode", 0))
        code, said = (str(error.response.get("Error", {}).get(key, "")) for key in ("Code", "Message"))
        refused = f'"{self._server}" refused "{about}" ({status} {code}): {said}'
        if status == 507 or code in _FULL or any(words in said.lower() for words in _FULL_WORDS):
            return RegistryError(f"The storage is full. {refused}", "Make room there, then run the same command again.")
        if code == "NoSuchBucket":
            return RegistryError(
                f'"{self._server}" has no bucket "{self.bucket}".', "Whoever runs the registry set it."
            )
        if status in PASSING or code in _PASSING:
            after = asked_pause(meta.get("HTTPHeaders", {}).get("retry-after"))
            return TryAgain(NetworkUnreachable(f"{refused}, again and again.", _FIX_NETWORK), after)
        if status in (401, 403):
            return AccessDenied(f"{refused}.", "Do the credentials that the registry hands out allow it?")
        return Refused(self._server, status, code, f'{said} ("{about}")')

    def _unanswered(self, error: BotoCoreError) -> CataloggerError | TryAgain:
        from botocore import exceptions

        passing = (
            exceptions.HTTPClientError,
            exceptions.ConnectionError,
            exceptions.IncompleteReadError,
            exceptions.FlexibleChecksumError,
        )
        if isinstance(error, exceptions.SSLError) and "CERTIFICATE" in str(error):
            return NetworkUnreachable(
                f'The certificate of "{self._server}" does not verify.',
                "AWS_CA_BUNDLE names the file of the authority that signed it.",
            )
        if isinstance(error, passing):
            return TryAgain(
                NetworkUnreachable(f'"{self._server}" cannot be reached, or does not answer in time.', _FIX_NETWORK)
            )
        return UsageError(f"No requests to S3 can be made: {error}", "Check the bucket, the endpoint and the region.")


def is_damaged(error: Exception) -> bool:
    """Whether the bytes that arrived were not those of their checksum."""
    return _code(error) in _DAMAGED


def _is_expired(error: ClientError) -> bool:
    code = _code(error)
    return code in _EXPIRED or (code == "400" and error.operation_name.startswith("Head"))  # whose answer has no body


def _code(error: Exception) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _session() -> Any:
    """A session of botocore that reads none of this machine's profiles and configuration files."""
    try:
        from botocore.session import Session
    except ImportError as error:
        raise UsageError("S3 needs boto3, which is not installed.", "pip install 'catalogger[s3]'") from error
    unset = (None, None, None, None)
    return Session(session_vars={"profile": unset, "config_file": _NO_FILE, "credentials_file": _NO_FILE})
