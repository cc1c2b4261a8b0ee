"""The other side of the network: calls to a registry, and files to its storage.  Patient, bounded, and without an
opinion on what is called or sent.
"""
