"""Family 2: methods that work on local models (calibrated updates, corrected gradients)."""
