"""The use cases. Given a storage, a hub and a clock, they know nothing of HTTP and SQL."""
