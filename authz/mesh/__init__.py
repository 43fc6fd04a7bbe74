"""The mesh as described in Istio's kinds, and the Envoy configuration rendered from it."""
