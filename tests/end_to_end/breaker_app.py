"""An application whose new path breaks when it is told to. Run by test_local_breaker.py.

Reads a line of JSON a command, answers with one: how its requests went.
"""

import json
import sys
from contextlib import suppress

from flagd_sdk import FlagClient

FLAG = "new-checkout"


class DeclinedError(Exception):
    pass


def serve(flags: FlagClient, name: str, requests: int, *, is_broken: bool) -> dict[str, object]:
    """Serve requests of new users, until the flag goes off here or they are all served.

    Returns:
        How many took the new path, whether it is off, and what the request after the last sees.
    """
    taken = 0
    for number in range(requests):
        with suppress(DeclinedError), flags.scope({"targetingKey": f"{name}-{number}"}):
            if flags.is_enabled(FLAG):
                taken += 1
                if is_broken:
                    raise DeclinedError
        if is_broken and flags.local_kills:
            break
    # Asked first: where nothing is held off here any more, what is seen is the server's word.
    kills = [kill.id for kill in flags.local_kills.values()]
    details = flags.details(FLAG, False, {"targetingKey": f"{name}-last"})
    return {
        "taken": taken,
        "kills": kills,
        "reason": details.reason.value,
        "metadata": dict(details.flag_metadata),
    }


def main(url: str, token: str, cache_dir: str) -> None:
    with FlagClient(url, token, cache_dir=cache_dir, service="shop", service_version="v1") as flags:
        for line in sys.stdin:
            command = json.loads(line)
            if "wait_s" in command:
                answer: object = flags.wait_until_ready(command["wait_s"])
            elif "flush_s" in command:
                answer = flags.flush(command["flush_s"])
            else:
                answer = serve(
                    flags, command["name"], command["requests"], is_broken=command["is_broken"]
                )
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
