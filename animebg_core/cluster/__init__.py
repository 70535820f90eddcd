"""Folders and films painted by many processes, on one machine or many: Ray Data and painters."""
