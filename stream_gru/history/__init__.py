"""Histories: from files and topics, through the engine, into tables and pictures."""
