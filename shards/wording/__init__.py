"""What sentences say: claims, parts of speech, frequent words, lexicons. Used by negatives, sources and scores."""
