"""A run whose batches are computed in several processes."""
