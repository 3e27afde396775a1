"""Builds a corpus of several distinct domains from the text that packages carry."""
