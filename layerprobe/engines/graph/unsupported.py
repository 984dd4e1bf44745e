"""What the graph engine says where it gives up, so that another engine can take over."""


class Unsupported(Exception):
    """The graph engine cannot build a model exactly as Keras does; the text, a clause, says what it lacks."""
