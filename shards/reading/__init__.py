"""A sample, by position, from a disk or an object store: `reader`, what it reads ahead, and its cache."""
