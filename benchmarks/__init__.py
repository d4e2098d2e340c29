"""Side-by-side measurements: ratios between alternatives that do the same work in one run.

Not tests: nothing here decides whether the code is right. Models have random weights made from
configurations, and nothing is downloaded.
"""
