"""The parts: one function ``name(setting)`` in a file of that name each."""
