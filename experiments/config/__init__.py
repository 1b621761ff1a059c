"""Settings: their schema, their files, and the names that they may use."""
