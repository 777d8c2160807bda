"""What may be in a request: one strict model a body or query, and every fault named at once.

A model says what a document must look like; whether it makes sense together with the rest of the
flag set is for `flagd_server.domain.validation`. `openapi.yaml` says the same for clients, and
the contract tests compare the two on every request of every test.
"""
