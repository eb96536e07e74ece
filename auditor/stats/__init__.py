"""Pure functions of counts: exact tests, sequential tests, query forecasts, re-draws, likelihood ratios.

Nothing here asks a suspect, reads a file, prints, looks at a clock or draws from a global generator.
"""
