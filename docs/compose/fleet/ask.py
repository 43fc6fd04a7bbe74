"""Ask `api` as the application `web` does, by its own Envoy, and print the status: ``python ask.py GET``."""

import sys
from http.client import HTTPConnection

connection = HTTPConnection("127.0.0.1", 15001, timeout=10)
connection.request(sys.argv[1], "/", headers={"host": "api.shop.svc.cluster.local"})
print(connection.getresponse().status)
