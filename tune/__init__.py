"""Sweeps over loss weights, temperatures, task ratios, negatives and learning rates.

Read in this order: `search.space` (what is varied), `search.plan` (a sweep and the runs it is made of), `trials.trial`
(one trial: an ordinary run, watched), `search.algorithm` (who chooses the values and who stops trials), `search.table`
(what is remembered), `search.repeats` (the best again with further seeds; who wins), `sweep` (the command), `report`.
"""

import sys
from pathlib import Path

# While `python -m tune.NAME` looks for its module, argv[0] is "-m" and the working folder comes first on the path: a
# file there that has the name of one of our packages would be run in its place.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
