"""Transfer studies: one declared file becomes a grid of sources and targets, figures and a page.

spec.py     what a transfer study declares
inputs.py   the declaration resolved: groups of organisms, files read, names checked
plan.py     which stages there are, and how much each does
costs.py    what maps hold and take, from widths
estimates.py  what the stages will take: answers, tokens, time, memory
showing.py  the plan as a dry run prints it
store.py    what a run has by now: bases in memory, what groups hold, ways, logs
stages.py   the stages, each a function of the ones before
columns.py  the last of them: everything that goes into one target
records.py  what the stages find
run.py      the trunk: stages in their order, by one process or several
results.py  what `results.json` holds
"""
