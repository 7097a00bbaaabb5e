"""Images for a backbone that runs in the training: processes that decode them (`loaders`, `decoder`), and how each is
shown (`looks` draws it, `look` does it)."""
