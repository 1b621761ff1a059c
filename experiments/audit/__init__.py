"""Is it really forgotten? Many models, controls, and validity cards for the metrics themselves."""
