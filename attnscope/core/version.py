"""The version of attnscope, which reports and saved files include."""

__version__ = "0.2.0"
