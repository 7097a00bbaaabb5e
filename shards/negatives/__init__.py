"""Captions that are false of their pair: found among others (`mining`), reworded by a grammar or by a lexicon."""
