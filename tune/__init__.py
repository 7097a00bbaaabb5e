"""Sweeps over loss weights, temperatures, task ratios, negatives and learning rates.

Read in this order: `search.space` (what is varied), `search.plan` (a sweep and the runs it is made of), `trials.trial`
(one trial: an ordinary run, watched), `search.algorithm` (who chooses the values and who stops trials), `search.table`
(what is remembered), `sweep` (the command), `report`.
"""
