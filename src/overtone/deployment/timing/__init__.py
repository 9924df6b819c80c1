"""Latency and memory, measured in processes that take turns."""
