"""Thin edges between the client and frameworks, one module each; none is imported unless used."""
