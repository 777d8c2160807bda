"""A small Flask shop that releases a new checkout behind a flag."""
