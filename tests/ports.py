"""Ports that stay a test's own while nobody listens on them."""

import os
import socket
import weakref


class ReservedPort:
    """A port of loopback for a server that is told which: also before it starts and between starts.

    A socket is bound to it and never listens, so that the system gives it to nobody who asks for
    any port, nor to an outgoing connection. A server that binds to it by its number, with
    SO_REUSEADDR as servers do, gets it all the same; until then connections are refused.

    It is free again when this object is gone.
    """

    def __init__(self) -> None:
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        self.number: int = holder.getsockname()[1]
        weakref.finalize(self, os.close, holder.detach())
