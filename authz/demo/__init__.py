"""Bookinfo on real Envoys, as plain processes on one machine: what `authz demo` starts, shows and checks."""
