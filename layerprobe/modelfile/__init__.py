"""A saved model read as data: nothing here imports a framework or runs anything of the file."""
