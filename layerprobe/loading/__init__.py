"""The normal form of a model file made into a live Keras model."""
