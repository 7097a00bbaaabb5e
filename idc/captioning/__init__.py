"""From a model to sentences: words and ids, beam search, where a sentence comes from, the folder of a model."""
