"""Policies as written: YAML bytes become the core's resources and mesh settings, with a place for every problem."""
