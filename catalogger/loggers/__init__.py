"""DO IT: stage, log, register, tag.  Only this room and `serving` change anything outside the process."""

from catalogger.loggers.checks import Checked, check, lint
from catalogger.loggers.job import log_model
from catalogger.loggers.outcome import Outcome, Plan
from catalogger.progress import Progress

__all__ = ["Checked", "Outcome", "Plan", "Progress", "check", "lint", "log_model"]
