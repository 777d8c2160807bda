"""The SDK in the frameworks that applications use; each file runs as it stands."""
