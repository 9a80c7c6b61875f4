"""The API."""

import json

from django.db import IntegrityError, transaction
from django.http import HttpResponseNotAllowed, JsonResponse
from django.shortcuts import get_object_or_404

from jobs.models import Job


def jobs(request):
    """GET lists the jobs; POST with `{"names": [...]}` makes all of them, or none where one of the names is taken."""
    if request.method == "GET":
        return JsonResponse({"results": [_shown(job) for job in Job.objects.order_by("pk")]})
    if request.method != "POST":
        return HttpResponseNotAllowed(["GET", "POST"])
    try:
        with transaction.atomic():
            made = [Job.objects.create(name=name) for name in json.loads(request.body)["names"]]
    except IntegrityError:
        return JsonResponse({"error": "there is a job of that name"}, status=409)
    return JsonResponse({"results": [_shown(job) for job in made]}, status=201)


def job(request, job_id):
    """GET shows a job; POST with `{"status": ...}` changes its status."""
    found = get_object_or_404(Job, pk=job_id)
    if request.method == "POST":
        found.status = json.loads(request.body)["status"]
        found.save()
    return JsonResponse(_shown(found))


def _shown(shown):
    return {"id": shown.pk, "name": shown.name, "status": shown.status}
