"""`flagctl`, the command line for any server: it speaks the admin API over HTTP.

It needs the extra `cli`, and takes nothing of the SDK but the core's checks and the error tree.
What commands think (charts, plans, diffs) is pure and apart from what they ask and print.
"""

import sys

_EXIT_USAGE = 2


def main() -> int:
    """Run one command; the exit status is one of `flagd_sdk.ctl.exits.Exit`."""
    try:
        from flagd_sdk.ctl.program import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "flagd_sdk":
            raise  # no extra brings it: the installation is broken
        sys.stderr.write(
            f"flagctl: the module {error.name!r} is missing; the command line needs what its extra"
            " brings: pip install 'flagd-release[cli]'\n"
        )
        return _EXIT_USAGE
    return run()
