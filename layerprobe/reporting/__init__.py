"""One HTML file about an output, which shows layers, channels and images without a network or a server."""
