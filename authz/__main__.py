"""``python -m authz`` is the command ``authz``."""

from authz.cli import main

main()
