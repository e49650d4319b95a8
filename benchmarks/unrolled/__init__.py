"""Online evolution strategies on unrolled tasks: `python -m benchmarks.unrolled`."""
