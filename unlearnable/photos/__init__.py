"""Protecting a folder of photos with one command, planned by what it costs on this machine."""
