"""All addresses. `/api` and `/health` are served without middleware, see agentcom/asgi.py."""

from django.contrib import admin
from django.urls import include, path

from dashboard.views import home

urlpatterns = [
    path("", home),
    path("", include("dashboard.urls")),
    path("", include("tasks.urls")),
    path("", include("fleet.urls")),
    path("admin/", admin.site.urls),
]
