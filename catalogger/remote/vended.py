"""The storage behind credentials that a registry vends for one version.

Source: the messages TemporaryCredentials of both Unity Catalog interfaces, as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from catalogger.errors import RegistryError
from catalogger.remote.storage import Storage

Credentials = Callable[[], Mapping[str, Any]]
_PACKAGES = {"s3": "boto3", "abfss": "azure.storage.filedatalake", "gs": "google.cloud.storage"}


def vended_storage(location: str, credentials: Credentials, default: Callable[[], Storage] | None = None) -> Storage:
    """The storage that fits the kind of the credentials, which are asked for anew when they expire; `default` makes the
    one that takes signed addresses.

    Raises RegistryError for a kind that is not known, and UsageError where a client library is not installed.
    """
    first = credentials()
    if default and first.get("storage_mode") == "DEFAULT_STORAGE":
        return default()
    again = _first_then(first, credentials)
    if "aws_temp_credentials" in first or "r2_temp_credentials" in first:
        from catalogger.remote.s3 import S3Storage

        return S3Storage(_s3(location), lambda: _s3_credentials(again(), location))
    if "azure_user_delegation_sas" in first:
        from catalogger.remote.azure import azure_storage

        return azure_storage(location, lambda: str(again()["azure_user_delegation_sas"]["sas_token"]))
    if "gcp_oauth_token" in first:
        from catalogger.remote.google import google_storage

        return google_storage(location, lambda: str(again()["gcp_oauth_token"]["oauth_token"]))
    raise RegistryError(
        f"The registry vends credentials of a kind that is not known here: {', '.join(sorted(first)) or 'none'}.",
        "A newer catalogger may know it; on Databricks, --upload files does without.",
    )


def needed_package(root: str) -> str | None:
    """The client library that this kind of location needs and that is not installed here."""
    package = _PACKAGES.get(root.partition("://")[0])
    if package is None:
        return None
    try:
        return None if find_spec(package) else package
    except ModuleNotFoundError:
        return package


def _first_then(first: Mapping[str, Any], credentials: Credentials) -> Credentials:
    """The credentials that are here already, and new ones from the second call on."""
    waiting = [first]
    return lambda: waiting.pop() if waiting else credentials()


def _s3(location: str) -> str:
    """R2 locations are `r2://bucket@account…/path`; their interface is that of S3."""
    if not location.startswith("r2://"):
        return location
    bucket, _, path = location.removeprefix("r2://").partition("/")
    return f"s3://{bucket.partition('@')[0]}/{path}"


def _s3_credentials(vended: Mapping[str, Any], location: str) -> Any:
    from catalogger.remote.s3 import S3Credentials

    keys = vended.get("aws_temp_credentials") or vended["r2_temp_credentials"]
    endpoint = None
    if location.startswith("r2://"):
        endpoint = f"https://{location.removeprefix('r2://').partition('/')[0].partition('@')[2]}"
    return S3Credentials(
        access_key=str(keys["access_key_id"]),
        secret_key=str(keys["secret_access_key"]),
        session_token=str(keys.get("session_token") or "") or None,
        endpoint=endpoint,
        region=None,
        upload_args=_encryption(vended),
    )


def _encryption(vended: Mapping[str, Any]) -> dict[str, str]:
    """What an upload must say where the bucket is encrypted with a key of the customer's."""
    details = (vended.get("encryption_details") or {}).get("sse_encryption_details") or {}
    if details.get("algorithm") == "AWS_SSE_S3":
        return {"ServerSideEncryption": "AES256"}
    if details.get("algorithm") == "AWS_SSE_KMS":
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": str(details.get("aws_kms_key_arn"))}
    return {}
