"""A run whose batches are computed on the nodes of a Ray cluster."""
