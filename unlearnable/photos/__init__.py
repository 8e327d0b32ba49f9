"""Folders of photos in one command: what is going to be done, chosen by what it costs here."""
