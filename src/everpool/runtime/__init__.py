"""What truly differs between the two worlds: ``aio`` for tasks, ``threads`` for threads.

Both modules have the same names with the same meaning; the shells are written against them
once, and generated for the other world.
"""
