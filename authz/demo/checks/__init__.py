"""The check: scenarios through the real Envoys, what was expected of each and what happened."""
