"""The check: scenarios on the real Envoys, what was expected of each and what happened."""
