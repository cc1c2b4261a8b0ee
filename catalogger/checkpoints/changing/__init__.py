"""Change a checkpoint: merge an adapter, cast to bfloat16, cut the shards anew; tensor by tensor, in flat memory.

A plan says every name, size and header of the result before a byte is written.  Nothing here loads a model.
"""
