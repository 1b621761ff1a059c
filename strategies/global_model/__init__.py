"""Family 1: methods that work on the global model (retraining, removal of contributions)."""
