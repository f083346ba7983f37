"""All URLs. Those of `is_for_api` are served without middleware, see agentcom/asgi.py."""

from django.contrib import admin
from django.urls import include, path

from agentcom import logins
from agentcom.api import SOCKETS, NotASocket
from agentcom.openapi import HttpSchema, SocketSchema
from dashboard.views import home

urlpatterns = [
    path("", home),
    path("", include("dashboard.urls")),
    path("", include("tasks.urls")),
    path("", include("fleet.urls")),
    path("", include("metrics.urls")),
    path("api/schema", HttpSchema.as_view(), name="schema"),
    path("api/schema/sockets", SocketSchema.as_view(), name="socket-schema"),
    path("admin/login/", logins.login),
    path("admin/logout/", logins.logout),
    path(
        "admin/password_change/",
        admin.site.admin_view(logins.ChangeOwnPassword.as_view(), cacheable=True),
    ),
    path("admin/", admin.site.urls),
    *(path(socket.lstrip("/"), NotASocket.as_view()) for socket in SOCKETS),
]
