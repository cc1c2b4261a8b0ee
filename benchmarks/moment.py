"""When something was measured, and how busy the machine was then."""

from __future__ import annotations

import os
from datetime import UTC, datetime


def moment() -> str:
    """Date, time and load average, for a report."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load average {os.getloadavg()[0]:.2f}"
