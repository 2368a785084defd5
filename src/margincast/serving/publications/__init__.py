"""Publications: the margins a venue put in force, one numbered and unchangeable folder each.

Responsible for the record between a computed margin and a charged one: who published it, when, why,
from which inputs, and what was in force before.
"""
