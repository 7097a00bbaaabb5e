"""A sweep's results, importance of its options, plots and page."""
