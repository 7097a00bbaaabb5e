"""Tars from records: planned as jobs, made by processes or by Ray tasks, resumed by a state; the tokenizer."""
