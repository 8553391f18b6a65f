"""This project against the plain way that the released code works, and against the machine: ``make bench``."""
