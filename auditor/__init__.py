"""Black-box ownership audits of machine-learning classifiers."""

import logging

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())
