"""The report of a transfer study: what is carried from organism to organism, and what arrives.

grid.py      the records as a grid: who is carried into whom, beside which nulls, with what verdict
counts.py    many cells in one line: how many transfer, median and range
words.py     the answer in sentences
cards.py     four more answers beside the main figure
cautions.py  what to know before believing it
tables.py    the score, the targets, the organisms in numbers
ways.py      the maps in numbers
arms.py      every arm in numbers
text.py      the answer in the terminal
figures/     heat maps and what stands beside them
page.py      one HTML file, and its main figure
"""
