"""Runs any network of the tables, exactly, in bounded memory."""
