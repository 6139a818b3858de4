"""The live page: what a pool does and why, in a browser, while it happens.

::

    from everpool import web

    app.mount("/pool", web.app(pool))          # in a Starlette or FastAPI application

    with web.serve(pool) as server:            # in a program without one
        print(server.url)

It reads `pool.snapshot()` five times a second while somebody watches, and nothing otherwise.
Hosts, users and what servers said are left out unless you allow them (``details``). It has no
login of its own: put yours in front of it.
"""

try:
    from .application import app
    from .serving import Server, serve
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "starlette":
        raise
    raise ModuleNotFoundError(
        'the live page needs starlette: pip install "everpool[web]"', name="starlette"
    ) from error

__all__ = ["Server", "app", "serve"]
