"""Bytes on this machine: hash a file, remember its digest, put it where it is needed."""
