"""Service discovery: register an instance, and keep its status true to its pools' health.

::

    from everpool.discovery import Consul, Instance, Registrar

    orders = Instance("orders", address="10.0.0.7", port=8000)
    with Registrar(Consul(), orders, pool):
        serve()

The instance is registered, its status follows ``pool.health()`` as the pool's events come, the
registration is renewed in time, made again when the registry lost it, and taken back at the end.
All of that happens in one daemon thread, for pools of threads and of asyncio alike: a registry
that is away or hangs delays nobody else.
"""

from .consul import Consul
from .etcd import Etcd
from .instance import Instance
from .registrar import Registrar, Standing

__all__ = ["Consul", "Etcd", "Instance", "Registrar", "Standing"]
