"""Grid features of images: the frozen network that makes them, its weights, and the canvas they are fitted into."""
