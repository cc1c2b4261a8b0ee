"""WHAT WE HAVE: the facts of a checkpoint from the Hub, a folder, a distribution or memory; and fetching it.

Facts only.  Whether they are right is for `catalogger.validators` to say.
"""

from catalogger.checkpoints.code import borrowed_repos, with_borrowed_code
from catalogger.checkpoints.facts import Checkpoint, File, Origin, Shard, Tensor
from catalogger.checkpoints.hub import fetch
from catalogger.checkpoints.logged import LoggedModel, open_logged
from catalogger.checkpoints.source import open_source, save_objects

__all__ = [
    "Checkpoint",
    "File",
    "LoggedModel",
    "Origin",
    "Shard",
    "Tensor",
    "borrowed_repos",
    "fetch",
    "open_logged",
    "open_source",
    "save_objects",
    "with_borrowed_code",
]
