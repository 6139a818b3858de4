"""The pure core: what the pool decides. No sockets, threads, loops, clocks or dice in here.

Theory of operation
===================

A pool keeps connections open to save the cost of opening them, and everything between the
program and the database may end any of them at any moment, aloud or in silence. So the pool
must answer three questions, all the time: which connections may be lent, which must be tested
first, and how many should be opened now. The answers depend on time, on chance and on what
happened before, which makes them hard to test where sockets and threads are. Here they are
separated from all that. **Events** come in as method calls with the time as an argument;
**effects** go out, as a list of orders. The shells (``_async``, ``_sync``) report events under
their lock and carry out effects outside it. Tests do both in virtual time, hours in a second.

**One connection** is a *slot* (`slot`): a state, an owner, some times. A table says which
event may follow which state. The state names the one party that may touch the connection, so
nobody waits for anybody, and nobody frees what another uses. A slot counts towards ``max_size``
from the decision to open it until it is closed, or until its death was seen.

**The table** (`table`) of all slots is the only truth. The stack of idle slots, the counts by
state and the queue (`queue`) are indices that can be rebuilt from it after an interruption in
the middle of anything: a key press, a cancellation, an exception raised into a thread.

**Lending** (`machine`) is last in, first out: hot sockets stay hot, spare ones age and go. Who
finds nothing waits, first come, first served. A returned connection goes straight to the first
who waits. Nobody overtakes, except who has to find out what became of a COMMIT: the others may be
waiting for its locks. And nobody waits while a connection rests.

**Doubt.** A connection not heard from for a while is pinged before it is lent. Its taker joins
the queue and gets the first thing that comes, this pong or another connection. A ping that is
late makes a connection *suspect*, not dead: the network may stall, the server may, we may. It
is given up when something sent later was answered (`supply`), and its siblings are tested
meanwhile. News that concerns all connections, such as a shutdown, raises the *generation*: what
is of an older one is tested before it is lent, and never closed on a guess.

**Opening** (`supply`, `connector`) is a job of its own. Callers want connections, they do not
make them, and one who gives up does not stop what he began. Demand opens many at once; after
deaths the first goes alone, then two, four, eight; in an outage one attempt is in flight, and
its outcome is what everybody waits for. What an error means is `verdict`'s to say.

**Upkeep** (`upkeep`) does what becomes due: pings to connections at rest, so that middleboxes
see traffic; lifetimes, with the replacement asked for first; idle times; deadlines; patience
with attempts that hang. Each tick says when the next is due.

**Failover.** Who answers behind the name may change. New connections are asked who they lead to
(`incarnation`): an old primary is refused while its successor answers (`history`), and a pool that
writes lends no standby (`failover`).

**Work in hand** may have a deadline too (`deadlines`): then its query is cancelled, and soon after
its connection ended, so that neither the caller nor the place waits for what will not come. What
its errors mean, for the transaction and for the others, is one table (`judgement`), by which the
shells repeat it or not, within a `budget`; what became of it is one of five (`outcome`).

A query that waits in silence may have nobody left who works on it (`inflight`): if the owner wants
that, the server is asked, on a connection beside the pool's.

**Knowing the path.** What is on it may be told (`environment`), and settings follow from that, each
with its reason (`rules`, `policy`). What nobody told is learned: every death is a sample (`learn`),
and what enough of them agree on is followed, tried out now and then, and dropped when it no longer
holds (`learning`).

**Telling.** Everything above is told as it happens (`events`), in order, and counted (`books`,
`histogram`); the pool's state as a whole follows from the table and the connector. `health`
judges all of that by numbers already there: nothing here is asked for at the cost of a
connection. Whoever gets none is told why, at once where waiting would be in vain, and when to
come again.

**The hot path** takes two doors past all this, ``take`` and ``give``: a dozen lines, no effects
in the common case. The property tests prove them equal to the events they stand for.
"""
