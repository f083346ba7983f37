"""`python -m agentcom_client` is `agentcom-client`."""

import sys

from agentcom_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
