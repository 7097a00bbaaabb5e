"""Scores of sentences: BLEU, METEOR, ROUGE-L and CIDEr as the COCO caption code has them, and CIDEr in Python."""
