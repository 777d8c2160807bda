"""The use cases of the server: given a storage, a hub and a clock, they know nothing of HTTP and SQL."""
