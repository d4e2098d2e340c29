"""Studies: one declared file becomes organisms, figures and a report.

spec.py     what a study declares, and its checks before weights load
folder.py   the run folder: a stage is a file, written whole, skipped when it stands
stages.py   the trunk's stages, each a function of the ones before
results.py  what `results.json` holds
__main__.py `python -m em_interp.study`
"""
