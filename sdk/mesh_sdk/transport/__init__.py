"""The only place that imports nats: connection, frames, pulls, lanes, key-value, and what can go wrong."""
