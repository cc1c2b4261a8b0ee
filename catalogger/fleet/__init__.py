"""MANY MODELS: what a manifest wants, what is there, and making it true; and what ties registering to serving.

This room calls loggers and serving, which do not know each other.
"""
