"""The mesh as described in Istio's kinds; ``envoy`` renders configuration from it."""
