"""Sweeps over loss weights, temperatures, task ratios, negatives and learning rates.

Read in this order: `search.space` (what is varied), `search.plan` (a sweep and the runs it is made of), `trials.trial`
(one trial: an ordinary run, watched), `search.algorithm` (who chooses the values and who stops trials), `search.table`
(what is remembered), `search.repeats` (the best again with further seeds; who wins), `sweep` (the command), `report`.
"""
