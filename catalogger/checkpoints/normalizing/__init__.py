"""Say a checkpoint's small files as one generation of Transformers writes them: 4 or 5.  Weights are not looked at, and
nothing is written.
"""
