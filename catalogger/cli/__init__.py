"""The command `log-model`.  A verb parses, calls one library function and prints; nothing is only in the command."""

from catalogger.cli.main import main

__all__ = ["main"]
