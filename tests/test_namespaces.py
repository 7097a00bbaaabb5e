"""Machines made of namespaces: they are apart, and a killed test run leaves nothing that stops the next."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from testing.machines.namespaces import machines, require

NAME, SUBNET = "alone", "198.18.6"
KILLED = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from testing.machines.namespaces import machines
with machines({NAME!r}, 2, {SUBNET!r}) as two:
    print(two.command(0, "true")[4], two.folder, flush=True)
    time.sleep(60)
"""


def test_machines_are_apart_and_survive_a_killed_run() -> None:
    require(("ip", "nsenter", "unshare", "setpriv"), ("iproute2",))
    run = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    pid, folder = run.stdout.readline().split()
    run.kill()
    run.wait(10)
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():  # the kernel ends them
        assert time.monotonic() < until, f"process {pid} of a killed run is still there"
        time.sleep(0.05)
    assert Path(folder).exists()
    with machines(NAME, 2, SUBNET) as two:
        assert not Path(folder).exists()
        two.run(0, "touch", "/tmp/mine")
        assert two.run(0, "hostname").stdout.strip() == f"{NAME}0"
        assert "mine" in two.run(0, "ls", "/tmp").stdout and "mine" not in two.run(1, "ls", "/tmp").stdout
        listen = "import socket; socket.create_server(('', 7)).accept()[0].sendall(b'heard')"
        server = subprocess.Popen(two.command(1, sys.executable, "-c", listen))
        ask = f"import socket, time; time.sleep(1); print(socket.create_connection(('{NAME}1', 7), 5).recv(9).decode())"
        assert two.run(0, sys.executable, "-c", ask).stdout.strip() == "heard"
        server.wait(10)
    assert not Path(f"/run/netns/{NAME}0").exists() and not two.folder.exists()
