"""Which preprocessing a model was trained with, as its file remembers, and what is wrong with it."""
