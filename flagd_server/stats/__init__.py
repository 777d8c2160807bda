"""Statistics on small integers: pure functions and small accumulators, standard library only."""
