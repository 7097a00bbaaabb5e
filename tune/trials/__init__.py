"""One trial: an ordinary run in a process of its own, watched."""
