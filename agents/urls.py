from django.urls import path

from agents import api

urlpatterns = [
    path("health", api.Health.as_view()),
    path("api/agents", api.Agents.as_view()),
    path("api/agents/states", api.AgentStates.as_view()),
    path("api/agents/<path:agent_id>/state", api.AgentStateView.as_view()),
]
