"""A federation of real processes: keys, certificates, sites with their own data, their wishes."""
