"""The TOML folders as code: one pydantic model a kind of spec, one to one, frozen and strict.

Every value of a margin that an operator may choose stands in ``features/``, ``training/`` or
``serving/``; these models say which keys there are and what each may hold. No defaults live here.
"""
