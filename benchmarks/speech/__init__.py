"""Benchmarks of speech: see `__main__`."""
