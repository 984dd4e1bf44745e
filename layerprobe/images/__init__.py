"""From the bytes of an image to what a model takes."""
