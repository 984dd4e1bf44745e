"""The normal form of a model file made into a live Keras model."""

from layerprobe.loading.backend import choose_backend

choose_backend()  # Before anything in this room imports Keras.
