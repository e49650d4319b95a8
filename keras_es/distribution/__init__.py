"""Training on many devices and by many workers."""
