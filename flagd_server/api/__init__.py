"""HTTP: thin blueprints that parse a request, call one service and serialise its answer."""
