"""The first files of a mesh of one's own: what `authz init` writes, as a pure function of what was asked for."""
