"""`python -m zoo.gen_wts` for whoever has a clone and nothing installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zoo.gen_wts import main

if __name__ == "__main__":
    main()
