"""
The services of Istio's Bookinfo, ours: productpage, details, reviews, ratings, and a stand-in for the outside world.

They know nothing of policies. Each listens on loopback and speaks plain HTTP to its own sidecar, as in a mesh.
starlette, uvicorn and httpx have their doors elsewhere in the product; here they are the demo's applications.
"""
