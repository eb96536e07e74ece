import sys
from pathlib import Path

# bundles.py is imported by name, here and by the tests of whole cases.
sys.path.insert(0, str(Path(__file__).parent))
