"""The statistics that the server's guard and the breaker in each process share."""
