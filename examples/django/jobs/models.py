"""The model, which broadcasts its own changes."""

from django.db import models

from jobs.broadcast import emit_on_commit


class Job(models.Model):
    """A job; each change of its status is broadcast as Tower does it."""

    name = models.CharField(max_length=100, unique=True)
    status = models.CharField(max_length=20, default="pending")

    def __str__(self):
        return self.name

    def save(self, *args, **kwargs):
        """Save, and broadcast the status."""
        super().save(*args, **kwargs)
        status = {"group_name": "jobs", "unified_job_id": self.pk, "status": self.status}
        emit_on_commit("jobs-status_changed", status)
