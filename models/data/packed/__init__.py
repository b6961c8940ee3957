"""Packed sets: images and labels in tar shards of WebDataset's format, with an index, so that nothing has to be in memory. No torch here.

`manifest` is what a packed set says of itself, `write` makes one (`lgm data pack`), `read` is the data set, `check` verifies one, `foreign`
makes the index of shards that others wrote, `stores` is where shards lie: a folder, or what fsspec reaches.
"""
