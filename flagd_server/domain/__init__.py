"""What is decided, apart from where it is stored and served.

Pure: no I/O, clock, randomness or threads.
"""
