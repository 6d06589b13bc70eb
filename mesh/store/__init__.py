"""Nouns over streams and buckets; no decisions."""
