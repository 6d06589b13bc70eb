"""The figures that the flow program declares, for whoever checks them without loading it."""

MAX_RUNS = 2
"""Of each key."""
RATE = 100
"""A second."""
TURNS_MAX_RUNS = 100
"""More than there are slots: one key could take them all."""
