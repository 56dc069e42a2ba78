"""Measurements beside forget quality and model utility: answers in words, copyrighted text, general capability."""
