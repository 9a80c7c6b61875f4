"""What a WSGI server runs: `gunicorn tower.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tower.settings")
application = get_wsgi_application()
