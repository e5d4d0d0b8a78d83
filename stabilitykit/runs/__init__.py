"""Run folders: the only room that writes them."""
