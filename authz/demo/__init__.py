"""Bookinfo on real Envoys, as plain processes of one machine: what `authz demo` starts, shows and checks."""
