"""Makes sure that no process outlives the demo, however the demo ends.

As a program it runs a command on the leash: `python -m examples.demo.leash PARENT COMMAND…`.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def hold(parent: int) -> None:
    """Have this process ended when its parent is gone, be it by SIGKILL.

    Only Linux offers this; elsewhere the demo still ends its processes, unless it is killed itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # gone before the leash was on
            sys.exit(1)


if __name__ == "__main__":
    hold(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the demo's own server, named by its path
