"""Statistics on small integers: pure functions and small accumulators, standard library only.

The coin test itself is `flagd_sdk.core.guard`, as the breaker in each process runs it too.
"""
