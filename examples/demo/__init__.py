"""A flag turns bad under real traffic and goes off by itself: `python -m examples.demo`."""
