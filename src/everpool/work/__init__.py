"""What transactions need on the wire, as psycopg generators: the same for threads and tasks.

*begin*: open a transaction and learn what it will take to find out, later, what became of it.
*commit*: end it, and look at all that is answered.
*resolve*: ask, on another connection, what became of a COMMIT whose answer was lost, and make
sure that the answer stays true.
*token*: the table of tokens, which makes the answer certain.

The shells (`_async/attempt.py` and its twin) lend the connections and wait.
"""
