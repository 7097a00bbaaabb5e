"""The embedded data set: scenes of blocks in the manner of CLEVR-Change, their pictures and their captions."""
