"""Accuracy of every method on equal steps: `python -m benchmarks.accuracy`."""
