"""In place of the agent of Ray's dashboard, where there is no dashboard (see own_ray.py).

Ray's node wants a process there that says on which ports it listens (-1: on none, as that of a Ray without a dashboard
does) and that lives as long as the node. Ray runs this script with the agent's options; it imports nothing of ours.
"""

import os
import sys
import time

PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
POLL_S = 0.5


def main() -> None:
    """Writes the ports, then waits for the end of the node."""
    node = os.getppid()
    (session,) = (one.partition("=")[2] for one in sys.argv if one.startswith("--session-dir="))
    for name in PORTS:
        path = os.path.join(session, name + "_" + os.environ["RAY_NODE_ID"])
        with open(path + ".part", "w") as file:
            file.write("-1")
        os.replace(path + ".part", path)
    while os.getppid() == node:
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
