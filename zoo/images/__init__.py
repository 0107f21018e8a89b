"""Pictures and videos in and out, and the pen that draws on them. Importing this imports no library."""

from __future__ import annotations

import os

# OpenCV reads these when it is loaded. Its log lines would only repeat what a BadSource or ZooError says in a sentence.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# A file of a kilobyte may say that it is a picture of a terabyte: more pixels than a square of 16,384 are refused.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28))
