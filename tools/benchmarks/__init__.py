"""What tools/bench measures with: one module for each group of scenarios, and what they share.

rig       processes, mounts, peers, sizes
measure   cases, rounds, medians, outcomes
report    table and CSV; plot draws
streams, small, futures, scale, idle    the scenarios: each has a dictionary SCENARIOS, name to function. The function
          gets the rig and gives the cases of the scenario; everything it makes, a stack of the rig ends.
loops/    the timed loops, in C
"""
