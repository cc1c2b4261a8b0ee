"""Where the real huggingface_hub client sends its requests."""

from __future__ import annotations

import pytest
from huggingface_hub import constants


def point_at(patch: pytest.MonkeyPatch, url: str) -> None:
    """Send the client to this address, as HF_ENDPOINT would at import."""
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def go_offline(patch: pytest.MonkeyPatch, *, offline: bool = True) -> None:
    """As HF_HUB_OFFLINE would at import."""
    patch.setattr(constants, "HF_HUB_OFFLINE", offline)
