"""Methods that train weights by derivatives along directions, without backprop."""
