"""Anybody's captions: files of them, matched with a split, scored under a named protocol, tested against others; and
runs brought together. No Ray and no DeepSpeed in here."""
