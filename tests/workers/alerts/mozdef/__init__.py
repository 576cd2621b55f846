"""MozDef's alert scripts; alerts/ is a folder of some."""
