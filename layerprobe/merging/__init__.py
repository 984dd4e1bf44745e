"""`merge`: the parts of a run, joined to the whole."""
