"""Pure functions of counts: exact and sequential tests, re-draws, panels, many questions, forecasts, ratios.

Nothing here asks a suspect, reads a file, prints, looks at a clock or draws from a global generator.
"""
