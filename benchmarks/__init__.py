"""Side by side with peers: `python -m benchmarks.NAME` prints, and writes results."""
