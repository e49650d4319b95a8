"""What a step evaluates, and where the values of members come from."""
