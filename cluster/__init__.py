"""The machines: joins the model (idc) and the data (shards) into runs on Ray and DeepSpeed.

Read in this order: `train` (the command), `pipeline` (data, training, scores, report), `training.stage` and
`training.step` (the loop), `training.engine` (DeepSpeed).
"""

import os
import sys
from pathlib import Path

CODE = Path(__file__).resolve().parents[1]  # the folder of our packages: a checkout, or where pip has put them
# While `python -m cluster.NAME` looks for its module, argv[0] is "-m" and the working folder comes first on the path: a
# file there that has the name of one of our packages would be run in its place.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    sys.path[0] = str(CODE)


def with_code() -> dict[str, str]:
    """The environment of this process for one that imports this code, wherever it is started."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH")]))}
