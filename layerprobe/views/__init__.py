"""Pictures of activations, in one style."""
