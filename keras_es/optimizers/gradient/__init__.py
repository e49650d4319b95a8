"""Methods that move masks by weights and their gradients."""
