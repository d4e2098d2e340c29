"""The figures of a transfer study: each from records alone, as SVG, beside its nulls and ceiling.

heat.py       heat maps of targets and sources on one scale: the drawing alone
effects.py    what adding and ablating does
likeness.py   where carried directions point
readouts.py   what they read of the trigger
shares.py     shares of the native effect with their intervals
methods.py    the maps beside each other
layers.py     which layers of two bases resemble each other
holdings.py   what the groups hold, by layer
organisms.py  how contained every organism is by itself
"""
