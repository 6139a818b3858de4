"""``everpool demo``: see the problem and the cure, on this machine, within a minute.

It starts a PostgreSQL server and, for each of three pools, a proxy that behaves as the database
proxy of Alibaba Cloud RDS does by its users' reports: it closes a connection that has been quiet for
long, or is old, and does not say a word. Time is compressed: hours become seconds. The same
requests, due at the same moments, go through psycopg_pool as it comes, psycopg_pool with ``check=``,
and everpool as it comes. Then the answers are counted. Nothing is staged: other runs give other
numbers.

What is fair about it, and what is not: all three have the same sizes and the same timeout, and
defaults otherwise. A request whose connection was cut after it was lent, or within the ten
milliseconds before, is counted apart: no pool could have known. The pools' own timers are not
compressed. With a ``max_lifetime`` of an hour, psycopg_pool would in real time replace some of the
connections before they are old, and with a ``keepalive`` of 45 seconds, everpool would keep most of
them from falling quiet. Neither gets this help here. (With a ``max_lifetime`` of one second, its
hour on this scale, psycopg_pool still failed 12 of 168 requests where it otherwise failed 18 or so:
it looks at a connection's age when the connection comes back, not while it lies quiet.)

``everpool demo --json`` prints one object; times are seconds::

    {
      "seconds": 28.0,                 how long requests came
      "took": 28.1,                    and how long it was until all were answered or given up
      "seed": 1,                       what the requests were made from
      "silent": false,                 whether the idle cut gives no sign (--silent)
      "versions": {"everpool": …, "psycopg": …, "psycopg_pool": …, "postgresql": …, "python": …},
      "proxy": {"idle_cut": 3.0, "age_cut": 6.0},
      "settings": {"min_size": 4, "max_size": 10, "timeout": 10.0, "workers": 8},
      "pools": {
        "psycopg_pool": {              and "psycopg_pool_check", and "everpool"
          "requests": 168,             the sum of the next four
          "answered": 149,
          "failed": 19,
          "cut_in_hand": 0,            failed because of a cut that no pool could know of
          "unfinished": 0,             still without an answer at the end
          "longest_unfinished": 0.0,   for how long
          "typical": 0.012,            half of the requests took no longer (p50), …
          "p99": 0.050,                … and 99 of 100; failed and unfinished ones are among them
          "slowest": 0.080,
          "errors": [{"class": "OperationalError", "text": "…", "count": 19}],
          "opened": 26,                connections
          "cut": {"idle": 13, "age": 7},   by the proxy's record
          "noted": {"FIN": 20}         by the pool's own record: everpool's only, else null
        }
      }
    }

The status at exit is 0 if everpool answered every request, save those counted apart, 1 if not, 2 if
the demo could not run, 130 if it was interrupted.
"""
