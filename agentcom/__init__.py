"""AgentCom: a hub that hands tasks to AI agents and shows the fleet live."""

__version__ = "0.2.0"
