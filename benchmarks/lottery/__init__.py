"""Lottery tickets: evolution and gradients, scores, controls, transfer, optima."""
