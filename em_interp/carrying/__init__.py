"""What `align` and `transfer` share: everything that is known before weights load.

reading.py  what maps are fitted on: flags, how layers are matched, memory of the moments
flags.py    the flags of `transfer`
plan.py     what a transfer needs, named and checked
sides.py    the two sides of a transfer: organisms, their directions and probes
"""
