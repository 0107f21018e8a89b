"""Pictures and videos in and out, and the pen that draws on them. Importing this imports no library."""

from __future__ import annotations

import os

# OpenCV reads these when it is loaded. Its log lines would only repeat what a BadSource or ZooError says in a sentence.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
