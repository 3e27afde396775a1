"""Checkpoints that are saved whole, checked before they are loaded, and compared with the command line.

`files` says which one a command loads and refuses a damaged one (`structure`, `manifest`); `saving`
makes a new one appear at once (`atomic_file`); `stored_run`, `settings`, `agreement` and
`restore_settings` deal with what it says of its model. What that replaces in Megatron and torch is in
`patches` and `async_writer`.
"""
