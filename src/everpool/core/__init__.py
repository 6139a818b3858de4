"""The pure core: what the pool decides. No sockets, threads, loops, clocks or dice in here."""
