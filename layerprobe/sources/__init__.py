"""Where samples come from: files named, listed or found in folders, and rows of arrays."""
