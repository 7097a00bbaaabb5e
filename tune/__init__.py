"""Sweeps over loss weights, temperatures, task ratios, negatives and learning rates.

Read in this order: `space` (what is varied), `plan` (a sweep and the runs it is made of), `trial` (one trial: an
ordinary run, watched), `algorithm` (who chooses the values and who stops trials), `table` (what is remembered),
`sweep` (the command), `report`.
"""
