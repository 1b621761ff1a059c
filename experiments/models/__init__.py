"""Networks, models that are none, and frozen trunks in front of them."""
