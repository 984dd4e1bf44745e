"""What runs a model; the only rooms that know a framework."""
