"""From a Keras model to a masked one and back."""
