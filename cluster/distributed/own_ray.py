"""A Ray that one job has to itself, without the processes that nobody would use there.

    python -m cluster.distributed.own_ray OPTIONS

is `ray start OPTIONS` of such a Ray; slurm/node.sh calls it on every node of a job.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cluster.distributed.imports import quickly

OWN = "IDC_OWN_RAY"  # the variable that has the address of such a Ray, for those that join it
NO_AGENT = Path(__file__).with_name("no_agent.py")


def leave_out_processes() -> None:
    """Nothing to scale, no logs to hand on, no page to serve and no clients elsewhere: four processes less on the first
    node. On every node the dashboard's agent is a script that waits, a second of work and 80 MB less.
    """
    from ray._private import ray_constants, services
    from ray._private.node import Node

    def nothing(node: Any, **_: Any) -> None:
        node._webui_url = ""

    for start in ("start_monitor", "start_log_monitor", "start_api_server", "start_ray_client_server"):
        setattr(Node, start, nothing)
    python = services._build_python_executable_command_memory_profileable

    def command(component: str, *rest: Any, **named: Any) -> list[str]:
        if component == ray_constants.PROCESS_TYPE_DASHBOARD_AGENT:
            return [sys.executable, "-I", "-S", str(NO_AGENT)]
        return python(component, *rest, **named)

    services._build_python_executable_command_memory_profileable = command


if __name__ == "__main__":
    with quickly():
        from ray.scripts.scripts import main
    leave_out_processes()
    sys.argv[1:1] = ["start"]
    main()
