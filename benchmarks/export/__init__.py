"""Exported models: what zeros bring in each format, and what int8 costs."""
