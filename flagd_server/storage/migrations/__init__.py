"""The steps by which an empty database becomes one of ours, oldest first."""
