"""Captions and their scores. No Ray and no DeepSpeed in here."""
