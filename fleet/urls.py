from django.urls import path

from fleet import api, enrolment

urlpatterns = [
    path("health", api.Health.as_view()),
    path("health/live", api.Live.as_view()),
    path("health/ready", api.Ready.as_view()),
    path("api/tasks/<str:task_id>", api.OneTask.as_view()),
    path("api/holds", api.HoldList.as_view()),
    path("api/holds/<str:hold_id>", api.OneHold.as_view()),
    path("api/enrol", enrolment.EnrolView.as_view()),
    path("api/whoami", api.WhoAmI.as_view()),
    path("api/agents", api.Agents.as_view()),
    path("api/agents/states", api.AgentStates.as_view()),
    path("api/agents/<path:agent_id>/state", api.AgentStateView.as_view()),
]
