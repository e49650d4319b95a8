"""Pure evolution on real data: `python -m benchmarks.pure`."""
