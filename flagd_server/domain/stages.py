"""The stages a rollout goes through where nobody has named others."""

DEFAULT_STAGES = (1.0, 5.0, 25.0, 50.0, 95.0)
"""Shares of the traffic in percent, ascending.

The last keeps a holdback of 5 %: at 100 % no user is without the feature, so there is no control
to compare with and no coin to toss, and the guard could only watch the service as a whole.
"""
