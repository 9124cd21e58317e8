"""Third-party modules: how they are found, isolated, run, recognised and reported."""
