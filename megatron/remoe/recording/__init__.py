"""Routing statistics of training steps and evaluations, written as `remoe.analysis.record` files.

`options` has the flags and what they refuse, `schedule` says which steps are recorded, `domains` names
what the data come from, `counters` add up on the device, `recorder` hangs them on a model.
"""
