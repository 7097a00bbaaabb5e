"""Edits of photos: one known change of each, drawn from a seed, with its pixels, its sentences and its truth."""
