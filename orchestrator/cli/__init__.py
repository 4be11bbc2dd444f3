"""Commands: a thin skin over the service functions, one file for each noun.

Commands import what they need when they run, so that `fpga --help` answers at once. Data goes to standard output,
progress and complaints to standard error. Exit codes: 0 good, 1 usage or system error, 2 finished with failed items,
130 interrupted.
"""
