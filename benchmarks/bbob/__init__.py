"""Strategies against evosax on its BBOB functions: `python -m benchmarks.bbob`."""
