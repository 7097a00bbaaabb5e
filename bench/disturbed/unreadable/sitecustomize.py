"""On the path of a run, it makes positioned reads fail with EIO while the file that FAULTS_EIO names is there.

Python imports a module of this name when it starts, so every process of the run has it.
"""

import errno
import os

_pread, _fails = os.pread, os.environ.get("FAULTS_EIO", "")


def _failing(descriptor: int, *arguments: int) -> bytes:
    if _fails and os.path.exists(_fails):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return _pread(descriptor, *arguments)


os.pread = _failing
