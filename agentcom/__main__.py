"""`python -m agentcom`: the same as `agentcom`."""

from agentcom.command import main

if __name__ == "__main__":
    main()
