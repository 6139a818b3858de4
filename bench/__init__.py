"""What everpool costs, beside psycopg_pool, on this machine.

Run it with ``make bench``, or ``python -m bench``::

    python -m bench                      # everything, under four minutes on two cores
    python -m bench --quick              # fewer rounds, about a minute: for a first look
    python -m bench --only burst-threads --only burst-asyncio
    python -m bench --json > figures.json
    python -m bench --dsn postgresql://… # another server than the one it starts itself
    python -m bench --self-check         # psycopg_pool on both sides: what the noise is

Each figure is printed beside the one asked for.  A ratio is everpool's time over
psycopg_pool's for the same work; below one, everpool is the faster.

**The same conditions for both.**  Both pools live in one process, against one server, with
the same connection class and sizes and with every other setting at its default: everpool's
checks are on, because they are on by default.  The two take turns in short rounds, and every
other round starts with the other one (AB BA AB …), so that a machine that speeds up, slows
down or is shared does so for both.  Garbage is collected before each round and what is
already there is frozen; the collector then stays *on*, and each side pays for the garbage it
makes.  Each side runs its own copy of the measuring loop, because CPython specialises
bytecode for the types it has seen, and a loop that has seen two pools is slower for both than
either is in a real program.

``--self-check`` puts psycopg_pool on both sides.  Ratios between 0.97 and 1.03 say that the
comparison is fair and the machine quiet enough for the small figures.

**How each figure is taken.**

``uncontended-threads``, ``uncontended-asyncio``
    One caller runs ``with pool.connection(): pass`` (or ``async with``) over and over on a pool
    of four.  A round is 300 of them, some milliseconds at most, and there are 400; the figure
    compares the best round of each side, since everything that disturbs a round of this kind
    makes it longer.

``busy-neighbour``
    The same with threads, while a second thread computes without pause.  The two share the
    interpreter in turns of 5 ms; a round lasts a fixed time of many such turns, and counts the
    checkouts.  Whatever gives up the interpreter on the way pays a turn for it here.  The lower
    quartile: other programs can only lengthen a round, but how the turns fall can also shorten it.

``validated-threads``, ``validated-asyncio``
    A connection that has rested is tested before it is lent: by everpool as it does by default,
    by psycopg_pool with ``check=ConnectionPool.check_connection``.  Before each round a query
    runs on every connection of a pool of 64 and all rest for 80 ms, more than the 50 ms after
    which everpool looks at the socket and less than the 0.5 s after which it asks the server.
    Then 64 ``connection()`` blocks are entered, one after the other, and that alone is timed.
    Best round.

``contended-asyncio``
    64 tasks on four connections; each takes one, holds it for ``asyncio.sleep(0)``, gives it
    back, ten times.  The CPU time of the loop until all are done, per checkout.  That loop never
    sleeps, so on a machine of its own this is the time that passes; but a round is too long to
    fall between other programs' turns.  Best round.

``contended-threads``
    16 threads on four connections; each takes one, holds it for ``time.sleep(0)``, gives it back,
    250 times.  From the barrier to the end of the last thread, per checkout.  Median of 15.

``burst-threads``, ``burst-asyncio``
    100 callers at once, each of which holds a connection for 0.1 s, on a pool that has four of at
    most 50.  Opening one takes 100 ms longer than it would: the connection class sleeps that
    long before it connects, the same for both, and counts how many connect at the same time.  The
    time until all are served, median; a new pool for each round.  If everpool ever had more
    than 16 connects under way the figure is void.

``idle-cpu``
    A process that holds a pool of 100 idle connections and does nothing else: its CPU time
    over the window, in percent of a core, for threads and for asyncio (the larger counts).  It
    runs beside the other cases, so that the window can be long enough to hold keepalives.

``idle-memory``
    A process with 200 bare psycopg connections in a list, and one with a pool of 200, both with
    everything imported and warmed up first, and six seconds to come to rest (everpool's connecting
    threads end after five without work).  What Python allocated in between, by tracemalloc, per
    connection, the pool's own fixed part included.  tracemalloc does not see what C
    libraries allocate, so the private memory of the process (``smaps_rollup``), taken in more
    processes without tracemalloc, stands beside it in the details.  That also counts what the C
    library's ``malloc`` keeps for each thread that ever connected; ``MALLOC_ARENA_MAX=1`` in the
    environment shows the difference.

``watched-threads``, ``watched-asyncio``
    ``uncontended`` with everpool on both sides: a pool with metrics for Prometheus (scraped every
    second) and OpenTelemetry, alerts, and a listener, and a pool without. How many µs more a
    checkout takes on the first, best rounds. A listener for loans (``Lent``, ``Returned``) and
    traces are left out: they take the long way by design.

``run-xid-…``, ``run-token-…``
    One insert in a transaction that is committed once and known to be: ``pool.run(insert)`` with
    ``commit="xid"`` and ``commit="token"`` (which inserts a second row) beside psycopg_pool's
    ``with pool.connection() as conn: conn.execute(insert)``, which cannot tell what became of a
    COMMIT whose answer was lost.  On a second server with ``fsync`` and ``full_page_writes`` on, and
    a direct connection, pools of four.  Rounds of ten; median, because each waits for the disk.

``run-read-only-…``
    ``pool.run(select, read_only=True)`` beside the same select in ``with pool.connection()``: three
    round trips on both sides, on the loopback, so that the pools' own part shows as much as it can.
    Pools of four; best round.

``size``
    ``with pool.connection(): pass`` on two pools of everpool's, of ten connections and of 1,000,
    in turns: the larger over the smaller, best rounds.  Since that touches the same hot connection
    again and again, the details also have the cost per checkout when all are taken and all given
    back.  Nothing is ever said on these connections, so pings are off (``verify_after=inf``).

``waiters``
    Four connections are held, 100, 1,000 or 10,000 tasks wait; then the four are given back, and
    the loop runs until the last task is served.  The CPU time of one hand-over with the most
    waiters over that with the fewest, best rounds.  A task that waited long has left the
    processor's caches, so the same is done with an ``asyncio.Semaphore``: the growth that
    remains in asyncio itself is in the details, as is psycopg_pool's.
"""
