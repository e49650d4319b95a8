"""Noise of the members of pure evolution: on weights, on outputs, layer by layer."""
