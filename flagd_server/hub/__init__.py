"""Fan-out of changes to open streams. The rest of the server sees `hub.base.Hub` only."""
