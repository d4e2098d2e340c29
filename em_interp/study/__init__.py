"""Studies: one declared file becomes organisms, figures and a report.

spec.py     what a study declares
matrix.py   one file for many studies: axes of options
inputs.py   the declaration resolved: files read, names checked, before weights load
plan.py     which stages there are, how much each does, what is left out
tokens.py   tokens of texts, counted before weights load
pace.py     what answers, passes and training cost on a machine
estimates.py  what a containment study's stages will take
showing.py  the plan as a dry run prints it
transfers/  studies that carry directions from organism to organism
folder.py   the run folder: a stage is a file, written whole, skipped when it stands
stages.py   the trunk's stages, each a function of the ones before
results.py  what `results.json` holds
__main__.py `python -m em_interp.study`
"""
