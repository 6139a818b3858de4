"""Measures what cuts connections on the way to a database, for real.

`observation` says what there is to see, `ladder` which idle times are worth trying, `plan` what to
do next, `evidence` what the observations prove, `findings` what follows: all of it pure. `wire`,
`facts` and `run` do it with sockets; `state`, `words`, `screen` and `command` are for people.
"""
