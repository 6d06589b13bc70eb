"""Whole meshes simulated from a seed: the real scheduler, workers and clients over a NATS server, a clock and faults that are not.

Read `world.py` first. Rule: every random choice comes from the seed, so that a seed that fails fails again.
"""
