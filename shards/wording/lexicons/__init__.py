"""Words that free captions can be made wrong with, by domain: birds, and everything else.

A lexicon has groups of words of which one may stand in place of another, the names of the two sides that a caption
compares, and phrases of change. `choice.choose_lexicon` reads a sample of the captions: the domain follows from the
text, so that own data in the manner of a known set are served alike. Blocks have a grammar of their own
(shards.blocks).
"""
