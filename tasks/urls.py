from django.urls import path

from tasks import api

# The URL of one task is in fleet/urls.py, because why it waits depends on the agents.
urlpatterns = [
    path("api/tasks", api.Tasks.as_view()),
    path("api/tasks/dead-letter", api.DeadLetter.as_view()),
    path("api/tasks/stats", api.Stats.as_view()),
    path("api/tasks/<str:task_id>/retry", api.RetryTask.as_view()),
    path("api/tasks/<str:task_id>/cancel", api.CancelTask.as_view()),
]
