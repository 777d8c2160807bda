"""Programs that use the SDK and the server as anyone would; each runs as it stands."""
