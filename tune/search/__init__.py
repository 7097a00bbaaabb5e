"""What is varied and who chooses: dimensions, the space, the plan of a sweep, its table."""
