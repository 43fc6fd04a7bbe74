"""A mesh of one's own on one machine, for trying: what `authz up` starts, follows and stops."""
