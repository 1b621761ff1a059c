"""The client side: Flower and PyTorch.

``app`` turns messages into calls, ``participant`` guards the data and runs the named step,
``steps`` holds the local work itself, one step per file.
"""
