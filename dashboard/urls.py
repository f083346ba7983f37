from django.urls import path

from dashboard import api, views

urlpatterns = [
    path("dashboard", views.page, name="dashboard"),
    path("api/dashboard/state", api.DashboardState.as_view()),
    path("api/dashboard/tasks/<str:task_id>", api.ShownTask.as_view()),
    path("api/dashboard/queue", api.Queue.as_view()),
]
