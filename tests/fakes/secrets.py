"""Every secret that tests use, each in the form that its users expect, and all with one mark that nothing else has.

`leaks.py` looks for the mark in all that a test says and leaves.
"""

from __future__ import annotations

import hashlib
from typing import Literal

MARK = "c0de5ec2e7ed"
"""Hexadecimal, so that it may stand in every kind of token, and that percent-encoding leaves it as it is."""

Form = Literal[
    "password", "databricks", "hugging face", "google", "session", "signature", "sas", "access key", "secret key"
]
_FORMS: dict[Form, tuple[str, int]] = {
    "password": ("", 20),
    "databricks": ("dapi", 32),
    "hugging face": ("hf_", 34),
    "google": ("ya29.", 100),
    "session": ("IQoJb3JpZ2luX2Vj", 100),
    "signature": ("", 64),
    "sas": ("sv=2024-11-04&se=2030-01-01&sig=", 44),
    "access key": ("AKIA", 16),
    "secret key": ("", 40),
}


def secret(purpose: str, form: Form = "password") -> str:
    """The secret for this purpose, always the same one.  The mark begins it and comes again and again, so that a part
    of it is found too.
    """
    prefix, length = _FORMS[form]
    digest = hashlib.sha256(purpose.encode()).hexdigest()
    body = "".join(MARK + digest[at : at + 8] for at in range(0, len(digest), 8))[:length]
    return prefix + (body.upper() if form == "access key" else body)
