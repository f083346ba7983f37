"""`python -m agentcom_client` is `agentcom-client`."""

import sys

from agentcom_client.cli import main

sys.exit(main())
