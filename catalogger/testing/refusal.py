"""What a loopback workspace refuses, in the form that Databricks sends it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from catalogger.testing.files_replies import Reply


class RefusalError(Exception):
    """An answer that is none: its status, its code (a word, or for a bad token a number), its words."""

    def __init__(self, status: int, code: str | int, message: str) -> None:
        super().__init__(message)
        self.reply = document({"error_code": code, "message": message}, status)


def missing(message: str) -> RefusalError:
    return RefusalError(404, "RESOURCE_DOES_NOT_EXIST", message)


def wrong(message: str) -> RefusalError:
    return RefusalError(400, "INVALID_PARAMETER_VALUE", message)


def document(answer: Mapping[str, Any], status: int = 200) -> Reply:
    body = json.dumps(answer).encode()
    return Reply(status, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body)
