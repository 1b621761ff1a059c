"""The library behind ``import fedunlearn``: settings, what can be done, and its runs."""
