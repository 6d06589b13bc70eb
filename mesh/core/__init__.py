"""The core: every decision of the mesh, pure. No IO, no clock, no randomness.

`Core.decide…(input)` makes records and applies each as it is made; a follower applies the same records from the
journal; `effects` tells from the records what to send. `core.py` is the file to read first.
"""
