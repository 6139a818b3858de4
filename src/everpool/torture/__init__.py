"""``everpool lab torture``: is what a pool says about a COMMIT true?

A round has a PostgreSQL server with an asynchronous standby, a proxy, and lanes: everpool's pools,
for threads and for tasks, in the modes ``commit="xid"`` and ``"token"``, and psycopg_pool with a loop
that tries again after an ``OperationalError``. Each lane does transfers and increments; each leaves a
row in a ledger without a unique constraint, so that work done twice is seen. Faults come from a seed:
connections are cut at every byte of COMMIT and of its answer, go silent until a deadline comes, or
are forgotten by the path, COMMITs are held back and delivered after their client is gone and even
after the pool has decided, backends are terminated, cancelled and
killed, the server is killed and started again, and the standby is promoted while it is behind.

What every caller was told is compared with the ledger: soon after, and in the end, when no session is
left that could still do anything. After a promotion the old primary is started again, alone, and asked
as well: a commit that it acknowledged and that the standby never got is lost by history, not by
the pool.

``everpool lab torture --json`` prints one object::

    {
      "seed": 1,
      "transactions": 10000,           through everpool's pools
      "struck": 1400,                  of them, those that a planned fault was brought down on
      "cuts": 1650,                    connections that the proxy cut, psycopg_pool's included
      "rounds": 2,
      "took": 31.2,                    seconds
      "events": {"postmaster killed": 4, …},
      "bytes_behind": [48272, …],      of the log: how far behind the standby was, by round
      "latest": 0.27,                  seconds after its deadline at which the last caller was free
      "versions": {"everpool": …, "psycopg": …, "psycopg_pool": …, "postgresql": …, "python": …},
      "lanes": {
        "xid, threads": {
          "total": {
            "transactions": 2500,      the sum of the next three
            "committed": 2490,         as the caller was told, in the end; committed locally included
            "not_committed": 8,
            "unknown": 2,              even after `CommitUnknown.resolve()`
            "unexplained": 0,          of them, those without a crash or promotion in between
            "asked_again": 5,          first unknown, and asked again
            "repeated": 130,           whose function was called more than once
            "slow": 0,                 that took more than five seconds
            "lost": 0,                 told to be committed, and not there
            "doubled": 0,              there more than once
            "false": 0,                told not to be committed, and there
            "without_outcome": 0,      an exception that did not say
            "late": 0,                 whose caller was not free in time after its deadline
            "early": 0,                refused, or ended, before the deadline
            "lost_by_history": 40      acknowledged by the old primary only
          },
          "raised": {"CommitUnknown: unknown": 2, …},
          "faults": {"cut in COMMIT": {…}, …}       the same counts, by what struck
        }
      },
      "broken": []                     what is not as it must be, each in a sentence
    }

Times and threads are the machine's own: the same seed makes the same plan of faults, not the same
counts.
"""
