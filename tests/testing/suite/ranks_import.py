"""What the server that ranks are forks of imports, once for all of them (see testing/multirank.py)."""

from __future__ import annotations

from cluster.distributed.imports import quickly

with quickly():
    import deepspeed  # noqa: F401
    import torch._dynamo  # noqa: F401  # ZeRO 3, and code that is compiled, import it, over a second of work

    import cluster.training.worker  # noqa: F401
