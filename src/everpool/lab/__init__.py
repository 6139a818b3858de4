"""A laboratory for connections: a PostgreSQL server, and the ways to cut a connection to it."""
