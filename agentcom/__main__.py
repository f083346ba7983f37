"""`python -m agentcom`: the same as `agentcom`."""

from agentcom.command import main

main()
