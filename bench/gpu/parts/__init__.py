"""What `python -m bench.gpu` measures, a part a module, and what the parts share."""
