"""From replies to ``results.json``: every number with the inputs it follows from, ready to be signed."""

from auditor.results.assembly import RESULTS_SCHEMA, analyse
from auditor.results.headline import Headline, headline
from auditor.results.numbers import power_of_ten

__all__ = ["RESULTS_SCHEMA", "Headline", "analyse", "headline", "power_of_ten"]
