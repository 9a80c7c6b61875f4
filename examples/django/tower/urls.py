"""Where things are."""

from django.urls import path
from jobs import views

urlpatterns = [
    path("api/jobs/", views.jobs),
    path("api/jobs/<int:job_id>/", views.job),
]
