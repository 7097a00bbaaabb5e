"""How much each dimension matters to the score, as far as a handful of trials can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune.search.dimension import Dimension
from tune.search.table import Trial

TREES, REPEATS = 100, 10
FEWEST = 8  # trials below which nothing is said
TRUSTED = 0.2  # of the variance explained, below which the shares are hardly more than guesses


@dataclass(frozen=True)
class Importance:
    """What a random forest makes of the trials."""

    shares: dict[str, float]  # dimension -> its share of what all of them explain; together 1, or all 0
    explained: float  # R2 on trials that the trees had not seen; near 0 or below: the shares mean nothing


def importances(dimensions: Sequence[Dimension], trials: Sequence[Trial], scores: Sequence[float]) -> Importance | None:
    """The importance of each dimension to `scores`, one a trial. None for too few trials, or equal scores.

    scikit-learn's random forest learns the scores from the places of the values in their ranges (log where they are);
    a dimension's importance is how much worse the forest gets once its values are shuffled among the trials
    (permutation importance: Breiman, Random Forests, 2001).
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    if len(scores) < FEWEST or np.ptp(scores) < 1e-9:
        return None
    places = np.array([[one.place(trial.values[one.name]) for one in dimensions] for trial in trials])
    forest = RandomForestRegressor(TREES, min_samples_leaf=2, max_features=1 / 3, oob_score=True, random_state=0)
    forest.fit(places, scores)
    found = permutation_importance(forest, places, scores, n_repeats=REPEATS, random_state=0)
    gains = np.maximum(found.importances_mean, 0.0)
    shares = gains / gains.sum() if gains.sum() > 0 else gains
    names = (one.name for one in dimensions)
    return Importance(dict(zip(names, map(float, shares), strict=True)), float(forest.oob_score_))
