"""Watching a process: metrics, health, logs. One port, used by worker and engine alike; never in the way of the work."""
