"""Sigma rules: YAML by pySigma to a plan, plans to our rules, and their conditions asked of events.

parsing.py    YAML -> plans, which are plain JSON; the only file that imports pySigma
plans.py      what a plan is, and the folder's cache of them
linking.py    plans -> rules: names, filters, correlations
view.py       an event as Sigma's rules look at it: their names of fields, and the log sources that it is of
condition.py  a plan's condition: whether it holds, why, and what must be there for it
index.py      which conditions an event may be for, of thousands
importing.py  a folder or ZIP file of rules -> the operator's own rules
"""
