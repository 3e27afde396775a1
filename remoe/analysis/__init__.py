"""What recorded routing says: pure functions, numpy in and out.

Two kinds of recording: counts of a training step or an evaluation (`record`), and the whole routing map
of a fixed calibration text (`maps`), which `counting` sums to the same counts.

=====================  =========================================================  ==========
file                   question                                                   needs
=====================  =========================================================  ==========
`load_balance`         is the work even, over experts and over ranks?             counts
`experts_per_token`    which tokens, layers and domains get many experts?         counts
`specialisation`       do experts know domains or tokens?                         counts
`divergence`           do domains that are far apart use other experts?           counts
`stability`            what changes from checkpoint to checkpoint (eq. 14, 15)?   maps
`coactivation`         which experts go together?                                 maps
`chunks`               how sparse are neighbouring tokens together?               maps
=====================  =========================================================  ==========

Shapes: L layers with experts, E experts, T tokens, D domains, V token ids. What has no value (the load
of a layer that no token entered) is NaN.
"""
