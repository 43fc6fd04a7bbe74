"""Make the buckets of a fleet on three servers: `python make_buckets.py ADDRESS BUNDLE DIRECTORY`."""

import sys
from pathlib import Path

from authz.truth.truth_address import TruthAccess, read_truth_address
from authz.truth.truth_bucket import make_buckets
from authz.truth.truth_client import TruthClient

if __name__ == "__main__":
    address, bundle, own = sys.argv[1:]
    access = TruthAccess(Path(bundle), Path(own) / "tls.crt", Path(own) / "tls.key")
    with TruthClient(read_truth_address(address), access) as client:
        make_buckets(client, 3)
