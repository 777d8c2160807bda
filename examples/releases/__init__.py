"""What the server does by itself while features and versions are released: run by

python -m examples.releases
"""
