from django.urls import path

from metrics import api

urlpatterns = [path("metrics", api.Metrics.as_view())]
