"""The commands: each module declares its own, asks the server, and renders the answer."""
