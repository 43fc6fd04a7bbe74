"""Policies as written: YAML bytes become the core's resources and mesh settings, with a place for every problem."""

from authz.policy.mesh_config import read_mesh
from authz.policy.reader import ReadResult, read_policies

__all__ = ["ReadResult", "read_mesh", "read_policies"]
