"""This project's client beside its peers' in one run: the same two flags, the same 10,000 users.

Each contender runs in a process of its own and is asked in turn, so that a slow minute slows them
all and no one's threads disturb another. Each is set up as its manual says, with its flags given
locally, and must pass the same check of its answers before it is timed. Users are brought into the
form that a client wants beforehand; what an application pays for that is not in the figures. What
a contender reports goes to a server on the loopback.

    make peers
"""
