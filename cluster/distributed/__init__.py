"""Ranks, their devices, and rows gathered with gradient."""
