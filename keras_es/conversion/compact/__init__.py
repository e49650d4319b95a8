"""Removing what is dead: a smaller plain model with the same outputs."""
