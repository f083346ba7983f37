from django.urls import path

from dashboard import api, docs, submitting, views

urlpatterns = [
    path("dashboard", views.page, name="dashboard"),
    path("dashboard/agents/<path:agent_id>", views.agent_page, name="dashboard-agent"),
    path("dashboard/submit", submitting.page, name="dashboard-submit"),
    path("dashboard/icon.svg", views.icon, name="dashboard-icon"),
    path("dashboard/sw.js", views.worker_script, name="dashboard-worker"),
    path("api/docs", docs.page),
    path("api/dashboard/state", api.DashboardState.as_view()),
    path("api/dashboard/history", api.History.as_view()),
    path("api/dashboard/tasks/<str:task_id>", api.ShownTask.as_view()),
    path("api/dashboard/queue", api.Queue.as_view()),
    path("api/dashboard/dead-letters", api.DeadLetters.as_view()),
]
