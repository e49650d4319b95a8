"""Training without backpropagation, measured: `python -m benchmarks.forward`."""
