"""Measurements of speed, memory and quality: `python -m benchmarks.speed` from the root."""
