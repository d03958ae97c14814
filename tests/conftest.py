"""What holds for every test: the defaults, whatever the user's shell or .env says."""

import os
import re

from tests.repo.repo import read

#: Settings that say where the cluster's parts come from, and not what they do.
SOURCES = {"PYTHON_IMAGE", "REDIS_IMAGE", "RABBITMQ_IMAGE", "IMAGE_PREFIX", "REDIS_SERVER"}

for _name in re.findall(r"^#?([A-Z][A-Z_]+)=", read(".env.example"), re.MULTILINE):
    if _name not in SOURCES:
        os.environ.pop(_name, None)
